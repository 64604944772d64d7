// Pictures on a canvas: level of detail, edges, points, labels; also the fallback where there is no WebGL2.

const STEPS = 16; // pieces of a geodesic where the chart has no arc for it

/** From u to v, points of the disk; the canvas has its origin in the middle of the panel, y up is negative. */
function geodesic(ctx, scene, R, i, j) {
  const { out: o, place, chart } = scene, [ux, uy, vx, vy] = [o[2 * i], o[2 * i + 1], o[2 * j], o[2 * j + 1]];
  ctx.moveTo(R * place[2 * i], -R * place[2 * i + 1]);
  if (!chart.straight && place !== o) {
    const [a, b] = [[ux, uy], [vx, vy]].map((z) => CHARTS.klein.to(toSheet(z))); // a geodesic is a chord of the Klein disk
    for (let k = 1; k < STEPS; k++) {
      const t = 0.5 - 0.5 * Math.cos((Math.PI * k) / STEPS); // closer steps where the rim bends it most
      const [px, py] = chart.to(...fromKlein([a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])]));
      ctx.lineTo(R * px, -R * py);
    }
    return ctx.lineTo(R * place[2 * j], -R * place[2 * j + 1]);
  }
  const length = R * Math.hypot(ux - vx, uy - vy), circle = chart.straight ? null : arc(ux, uy, vx, vy);
  if (!circle || (length * length) / (8 * R * circle[2]) < 0.3) return ctx.lineTo(R * place[2 * j], -R * place[2 * j + 1]); // sagitta in pixels
  const [cx, cy, r] = circle, from = Math.atan2(-(uy - cy), ux - cx), to = Math.atan2(-(vy - cy), vx - cx);
  const turn = Math.atan2(Math.sin(to - from), Math.cos(to - from));
  ctx.arc(R * cx, -R * cy, R * r, from, to, turn < 0);
}

function visibleEdges(scene, R, edges, most, shortest) {
  const o = scene.out, p = scene.place, seen = [];
  for (const edge of edges) {
    const i = 2 * edge[0], j = 2 * edge[1];
    if (o[i] ** 2 + o[i + 1] ** 2 > 0.975 && o[j] ** 2 + o[j + 1] ** 2 > 0.975) continue; // both ends melt into the rim
    if (R * (Math.abs(p[i] - p[j]) + Math.abs(p[i + 1] - p[j + 1])) < shortest) continue;
    if (seen.push(edge) >= most) break;
  }
  return seen;
}

function paintEdges(ctx, scene, R, edges, alpha) {
  const batches = scene.legend.colours.map(() => []);
  for (const edge of edges) batches[scene.colour[edge[1]]].push(edge); // in the child's colour
  ctx.globalAlpha = alpha * Math.min(1, Math.sqrt(1000 / edges.length)); // many edges, faint edges
  batches.forEach((batch, colour) => {
    ctx.strokeStyle = scene.legend.colours[colour];
    for (let k = 0; k < batch.length; k += 300) { // one path of 80,000 pieces would be far slower than many paths
      ctx.beginPath();
      for (const [i, j] of batch.slice(k, k + 300)) geodesic(ctx, scene, R, i, j);
      ctx.stroke();
    }
  });
}

const radius = (scene, i, w2) => scene.dot * (0.9 + (2.2 + 0.35 * Math.log2(scene.weight[i])) * Math.max(0, 1 - w2));

/** Heavier points first into a grid of `cell` pixels: where thousands share a pixel at the rim one is drawn. */
function thin(scene, R, cell, most) {
  const o = scene.place, side = Math.ceil((2 * R) / cell) + 2, taken = new Uint8Array(side * side);
  scene.visible.length = 0;
  for (const i of scene.active) {
    const x = o[2 * i], y = o[2 * i + 1];
    if (!(Math.abs(x) <= 1 && Math.abs(y) <= 1) || (scene.unit && x * x + y * y > 1)) continue;
    const at = (((y + 1) * R) / cell | 0) * side + (((x + 1) * R) / cell | 0);
    if (taken[at]) continue;
    taken[at] = 1;
    if (scene.visible.push(i) >= most) break;
  }
}

function paintPoints(ctx, scene, R, small) {
  const o = scene.out, p = scene.place, batches = scene.legend.colours.map(() => []);
  for (const i of scene.visible) batches[scene.colour[i]].push(i);
  batches.forEach((batch, colour) => {
    ctx.fillStyle = scene.legend.colours[colour];
    for (let k = batch.length - 1; k >= 0; k--) {
      const i = batch[k], x = R * p[2 * i], y = -R * p[2 * i + 1];
      const r = radius(scene, i, o[2 * i] ** 2 + o[2 * i + 1] ** 2);
      if (r < 1.3 || (small && r < 2.5)) ctx.fillRect(x - r, y - r, 2 * r, 2 * r);
      else (ctx.beginPath(), ctx.arc(x, y, r, 0, 7), ctx.fill());
    }
  });
}

/** The best few by nearness to the centre and weight of the branch; those already shown stay a little longer. */
function candidates(scene, count) {
  const best = [], o = scene.out;
  for (const i of scene.visible) {
    const r = Math.hypot(o[2 * i], o[2 * i + 1]);
    if (r > 0.96) continue;
    const score = 0.45 * Math.log2(scene.weight[i]) - 2 * Math.atanh(r) + (scene.shown.has(i) ? 0.4 : 0);
    if (best.length === count && score <= best[count - 1].score) continue;
    let k = best.length;
    while (k > 0 && best[k - 1].score < score) k--;
    best.splice(k, 0, { i, score });
    if (best.length > count) best.pop();
  }
  return best.map((b) => b.i);
}

function paintLabels(ctx, scene, R, theme, first) {
  const boxes = [], o = scene.out, p = scene.place;
  const list = [...first, ...candidates(scene, 4 * LABELS).filter((i) => !first.includes(i))];
  ctx.font = theme.font;
  ctx.textBaseline = "middle";
  ctx.lineJoin = "round";
  scene.shown.clear();
  for (const i of list) {
    if (scene.shown.size >= LABELS) break;
    const text = words(scene, i).label, cut = text.length > 26 ? text.slice(0, 25) + "…" : text;
    const w = ctx.measureText(cut).width, x = R * p[2 * i], y = -R * p[2 * i + 1];
    const gap = radius(scene, i, o[2 * i] ** 2 + o[2 * i + 1] ** 2) + (first.includes(i) ? 7 : 3); // clear of its ring
    const spots = [[x + gap, y], [x - gap - w, y], [x - w / 2, y - gap - 6], [x - w / 2, y + gap + 6]];
    const spot = spots.find(([left, mid]) => Math.abs(mid) < R - 6 && left > -R && left + w < R &&
      !boxes.some((b) => left < b[2] && left + w > b[0] && mid - 8 < b[3] && mid + 8 > b[1]));
    if (!spot) continue;
    boxes.push([spot[0] - 2, spot[1] - 7, spot[0] + w + 2, spot[1] + 7]);
    scene.shown.add(i);
    ctx.lineWidth = 3.5;
    ctx.strokeStyle = theme.ground;
    ctx.strokeText(cut, ...spot);
    ctx.fillStyle = theme.ink;
    ctx.fillText(cut, ...spot);
  }
}

/** The edge of the picture: the rim of a disk, the border of the half-plane. */
function paintRim(ctx, scene, R, theme) {
  ctx.beginPath();
  if (scene.chart.round) ctx.arc(0, 0, R, 0, 7);
  else ctx.rect(-R, -R, 2 * R, 2 * R);
  const [, bottom, side] = scene.chart.window, border = R * (1 + (2 * bottom) / side);
  if (scene.chart.name === "half-plane") (ctx.moveTo(-R, border), ctx.lineTo(R, border));
  ctx.lineWidth = 1;
  ctx.globalAlpha = 0.6;
  ctx.strokeStyle = theme.ink;
  ctx.stroke();
  ctx.globalAlpha = 1;
}

/** Points and at most `budget` edges of the tree. */
function paintTree(ctx, scene, R, budget) {
  const quick = budget < Infinity;
  ctx.lineWidth = 1;
  if (!quick) paintEdges(ctx, scene, R, visibleEdges(scene, R, scene.cross, Infinity, 2), 0.15);
  paintEdges(ctx, scene, R, visibleEdges(scene, R, scene.tree, budget, quick ? 3 : 1), 0.55);
  ctx.globalAlpha = 1;
  thin(scene, R, quick ? 2 : 0.5, 3 * budget);
  paintPoints(ctx, scene, R, quick);
}

/** The painter of canvases. */
function canvasPainter(canvas) {
  const ctx = canvas.getContext("2d");
  return {
    kind: "canvas",
    paint(scene, R, theme, budget) {
      const k = canvas.width / theme.side;
      ctx.reset();
      ctx.setTransform(k, 0, 0, k, canvas.width / 2, canvas.width / 2);
      if (scene.unit) (ctx.beginPath(), ctx.arc(0, 0, R, 0, 7), ctx.clip()); // the flat plane goes on beyond the window
      paintTree(ctx, scene, R, budget);
    },
    end() {},
  };
}

function paintPath(ctx, scene, R, theme, i, strong) {
  const o = scene.out, p = scene.place, path = pathToRoot(scene, i);
  ctx.beginPath();
  for (let k = 0; k + 1 < path.length; k++) geodesic(ctx, scene, R, path[k], path[k + 1]);
  for (const [colour, width] of [[theme.ground, 6], [theme.ink, strong ? 2.5 : 1.5]]) { // ink: no category has it
    ctx.strokeStyle = colour;
    ctx.lineWidth = width;
    ctx.stroke();
  }
  ctx.lineWidth = 1.8;
  for (const j of path) {
    const x = o[2 * j], y = o[2 * j + 1], r = radius(scene, j, x * x + y * y) + (j === i ? 3 : 1);
    ctx.beginPath();
    ctx.arc(R * p[2 * j], -R * p[2 * j + 1], r, 0, 7);
    ctx.stroke();
  }
}

/** The lasso on its way, and a ring about each point that it has caught. */
function paintLasso(ctx, scene, R, theme, polygon) {
  const p = scene.place;
  ctx.strokeStyle = theme.ink;
  ctx.lineWidth = 1;
  ctx.beginPath();
  for (const i of scene.lassoed.slice(0, 3000)) {
    const x = R * p[2 * i], y = -R * p[2 * i + 1];
    ctx.moveTo(x + 4, y);
    ctx.arc(x, y, 4, 0, 7);
  }
  ctx.stroke();
  if (!polygon) return;
  ctx.setLineDash([5, 4]);
  ctx.beginPath();
  for (const [x, y] of polygon) ctx.lineTo(R * x, -R * y);
  ctx.closePath();
  ctx.stroke();
  ctx.setLineDash([]);
}
