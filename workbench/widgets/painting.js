// From what Python sent to pictures on a canvas: the scene, level of detail, edges, points, labels.
// disk.py joins isometry.js, painting.js and disk.js, in this order, into one module.

// ---- What Python sends ---------------------------------------------------------------------------------

const LABELS = 30;

function array(model, key, Type) {
  const d = model.get(key); // a DataView that may start anywhere, so the bytes are copied to an aligned buffer
  return new Type(d.buffer.slice(d.byteOffset, d.byteOffset + d.byteLength));
}

function readScene(model) {
  const xy = array(model, "_xy", Float64Array), n = xy.length / 2;
  const scene = {
    n, xy, rows: [], out: new Float64Array(2 * n), colour: array(model, "_color", Uint8Array),
    parents: array(model, "_parents", Int32Array), legend: model.get("_legend"), shown: new Set(), visible: [],
  };
  scene.weight = branchSizes(scene.parents, n); // decides who is labelled and drawn first
  scene.order = Uint32Array.from({ length: n }, (_, i) => i).sort((i, j) => scene.weight[j] - scene.weight[i]);
  const edges = array(model, "_edges", Uint32Array), tree = [], cross = [];
  for (let k = 0; k < edges.length; k += 2) {
    const pair = [edges[k], edges[k + 1]];
    (!scene.parents.length || scene.parents[pair[1]] === pair[0] ? tree : cross).push(pair);
  }
  tree.sort((e, f) => scene.weight[f[1]] - scene.weight[e[1]]);
  return Object.assign(scene, { tree, cross });
}

/** How many nodes hang at and below each node: a node hands its count up once all its children have. */
function branchSizes(parents, n) {
  const size = new Float32Array(n).fill(1), waiting = new Uint32Array(n), ready = [];
  for (const p of parents) if (p >= 0) waiting[p]++;
  for (let i = 0; i < parents.length; i++) if (!waiting[i]) ready.push(i);
  while (ready.length) {
    const i = ready.pop(), p = parents[i];
    if (p < 0) continue;
    size[p] += size[i];
    if (--waiting[p] === 0) ready.push(p);
  }
  return size;
}

async function readText(model) {
  const bytes = array(model, "_text", Uint8Array);
  if (!bytes.length) return [];
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return (await new Response(stream).text()).split("\n"); // one row a point: label, name, gloss, split when needed
}

const words = (scene, i) => {
  const [label = "", name = "", gloss = ""] = (scene.rows[i] ?? "").split("\t");
  return { label: label || name || `#${i}`, name, gloss };
};

function pathToRoot(scene, i) {
  const path = [];
  for (let j = i; j >= 0; j = scene.parents[j] ?? -1) path.push(j);
  return path;
}

// ---- Painting ------------------------------------------------------------------------------------------

function geodesic(ctx, R, ux, uy, vx, vy) { // canvas origin at the disk's centre, y up is negative
  ctx.moveTo(R * ux, -R * uy);
  const length = R * Math.hypot(ux - vx, uy - vy), circle = arc(ux, uy, vx, vy);
  if (!circle || (length * length) / (8 * R * circle[2]) < 0.3) return ctx.lineTo(R * vx, -R * vy); // sagitta in pixels
  const [cx, cy, r] = circle, from = Math.atan2(-(uy - cy), ux - cx), to = Math.atan2(-(vy - cy), vx - cx);
  const turn = Math.atan2(Math.sin(to - from), Math.cos(to - from));
  ctx.arc(R * cx, -R * cy, R * r, from, to, turn < 0);
}

function visibleEdges(scene, R, edges, most, shortest) {
  const o = scene.out, seen = [];
  for (const edge of edges) {
    const i = 2 * edge[0], j = 2 * edge[1];
    if (o[i] ** 2 + o[i + 1] ** 2 > 0.975 && o[j] ** 2 + o[j + 1] ** 2 > 0.975) continue; // both ends melt into the rim
    if (R * (Math.abs(o[i] - o[j]) + Math.abs(o[i + 1] - o[j + 1])) < shortest) continue;
    if (seen.push(edge) >= most) break;
  }
  return seen;
}

function paintEdges(ctx, scene, R, edges, alpha) {
  const o = scene.out, batches = scene.legend.colours.map(() => []);
  for (const edge of edges) batches[scene.colour[edge[1]]].push(edge); // in the child's colour
  ctx.globalAlpha = alpha * Math.min(1, Math.sqrt(1000 / edges.length)); // many edges, faint edges
  batches.forEach((batch, colour) => {
    ctx.strokeStyle = scene.legend.colours[colour];
    for (let k = 0; k < batch.length; k += 300) { // one path of 80,000 pieces would be far slower than many paths
      ctx.beginPath();
      for (const [i, j] of batch.slice(k, k + 300)) geodesic(ctx, R, o[2 * i], o[2 * i + 1], o[2 * j], o[2 * j + 1]);
      ctx.stroke();
    }
  });
}

const radius = (scene, i, w2) => scene.dot * (0.9 + (2.2 + 0.35 * Math.log2(scene.weight[i])) * (1 - w2));

/** Points, heavier first into a grid of `cell` pixels: where thousands share a pixel at the rim one is drawn. */
function paintPoints(ctx, scene, R, cell, most) {
  const o = scene.out, side = Math.ceil((2 * R) / cell) + 2, taken = new Uint8Array(side * side);
  const batches = scene.legend.colours.map(() => []);
  scene.visible.length = 0;
  for (const i of scene.order) {
    const at = (((o[2 * i + 1] + 1) * R) / cell | 0) * side + (((o[2 * i] + 1) * R) / cell | 0);
    if (taken[at]) continue;
    taken[at] = 1;
    batches[scene.colour[i]].push(i);
    if (scene.visible.push(i) >= most) break;
  }
  batches.forEach((batch, colour) => {
    ctx.fillStyle = scene.legend.colours[colour];
    for (let k = batch.length - 1; k >= 0; k--) {
      const i = batch[k], x = R * o[2 * i], y = -R * o[2 * i + 1];
      const r = radius(scene, i, o[2 * i] ** 2 + o[2 * i + 1] ** 2);
      if (r < 1.3 || (most < Infinity && r < 2.5)) ctx.fillRect(x - r, y - r, 2 * r, 2 * r);
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
  const boxes = [], o = scene.out;
  const list = [...first, ...candidates(scene, 4 * LABELS).filter((i) => !first.includes(i))];
  ctx.font = theme.font;
  ctx.textBaseline = "middle";
  ctx.lineJoin = "round";
  scene.shown.clear();
  for (const i of list) {
    if (scene.shown.size >= LABELS) break;
    const text = words(scene, i).label, cut = text.length > 26 ? text.slice(0, 25) + "…" : text;
    const w = ctx.measureText(cut).width, x = R * o[2 * i], y = -R * o[2 * i + 1];
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

function paintScene(ctx, scene, R, theme, budget) {
  const quick = budget < Infinity;
  ctx.beginPath();
  ctx.arc(0, 0, R, 0, 7);
  ctx.fillStyle = theme.ground;
  ctx.fill();
  ctx.lineWidth = 1;
  if (!quick) paintEdges(ctx, scene, R, visibleEdges(scene, R, scene.cross, Infinity, 2), 0.15);
  paintEdges(ctx, scene, R, visibleEdges(scene, R, scene.tree, budget, quick ? 3 : 1), 0.55);
  ctx.globalAlpha = 1;
  paintPoints(ctx, scene, R, quick ? 2 : 0.5, 3 * budget);
  ctx.beginPath();
  ctx.arc(0, 0, R, 0, 7);
  ctx.globalAlpha = 0.6;
  ctx.strokeStyle = theme.ink;
  ctx.stroke();
  ctx.globalAlpha = 1;
}

function paintPath(ctx, scene, R, theme, i, strong) {
  const o = scene.out, path = pathToRoot(scene, i);
  ctx.beginPath();
  for (let k = 0; k + 1 < path.length; k++)
    geodesic(ctx, R, o[2 * path[k]], o[2 * path[k] + 1], o[2 * path[k + 1]], o[2 * path[k + 1] + 1]);
  for (const [colour, width] of [[theme.ground, 6], [theme.ink, strong ? 2.5 : 1.5]]) { // ink: no category has it
    ctx.strokeStyle = colour;
    ctx.lineWidth = width;
    ctx.stroke();
  }
  ctx.lineWidth = 1.8;
  for (const j of path) {
    const x = o[2 * j], y = o[2 * j + 1], r = radius(scene, j, x * x + y * y) + (j === i ? 3 : 1);
    ctx.beginPath();
    ctx.arc(R * x, -R * y, r, 0, 7);
    ctx.stroke();
  }
}
