// The scene: what Python sent, in the shape that painting needs; who is shown, who is near, what is above.

const LABELS = 30, NEAREST = 8;

function array(model, key, Type) {
  const d = model.get(key); // a DataView that may start anywhere, so the bytes are copied to an aligned buffer
  return new Type(d.buffer.slice(d.byteOffset, d.byteOffset + d.byteLength));
}

function readScene(model) {
  const own = array(model, "_xy", Float64Array), n = own.length / 2, unit = model.get("_unit");
  const scene = {
    n, own, unit, rows: [], out: new Float64Array(2 * n), colour: array(model, "_color", Uint8Array),
    parents: array(model, "_parents", Int32Array), legend: model.get("_legend"), shown: new Set(), visible: [], lassoed: model.get("lassoed"),
    geometry: unit ? flat(1 / unit) : HYPERBOLIC,
  };
  bend(scene, model.get("curvature"));
  showAs(scene, model.get("chart"));
  scene.weight = branchSizes(scene.parents, n); // decides who is labelled and drawn first
  scene.depth = depths(scene.parents, n);
  scene.order = Uint32Array.from({ length: n }, (_, i) => i).sort((i, j) => scene.weight[j] - scene.weight[i]);
  const edges = array(model, "_edges", Uint32Array);
  scene.edges = Array.from({ length: edges.length / 2 }, (_, k) => [edges[2 * k], edges[2 * k + 1]]);
  scene.edges.sort((e, f) => scene.weight[f[1]] - scene.weight[e[1]]);
  return sift(scene, model.get("subtree"), model.get("max_depth"));
}

/** Points of the plane of curvature -c: xy is what is shown, own what Python sent. */
function bend(scene, c) {
  scene.c = c;
  scene.xy = scene.unit || c === 1 ? scene.own : dialled(scene.own, c);
}

function showAs(scene, chart) {
  scene.chart = scene.unit ? FLAT_PANEL : PANELS[chart];
  scene.place = scene.chart.name === "disk" ? scene.out : new Float64Array(2 * scene.n);
}

/** Only what is at or below `top` and not deeper than `most` (-1: all) stays in the picture. */
function sift(scene, top, most) {
  scene.alive = new Uint8Array(scene.n).fill(1);
  if (top >= 0) for (const i of scene.order) // a parent has more below it than its child: parents come first
    scene.alive[i] = i === top || (scene.parents[i] >= 0 && scene.weight[i] < scene.weight[top] && scene.alive[scene.parents[i]]) ? 1 : 0;
  if (most >= 0) for (let i = 0; i < scene.n; i++) if (scene.depth[i] > most) scene.alive[i] = 0;
  scene.active = scene.order.filter((i) => scene.alive[i]);
  scene.tree = [];
  scene.cross = [];
  for (const edge of scene.edges) if (scene.alive[edge[0]] && scene.alive[edge[1]])
    (!scene.parents.length || scene.parents[edge[1]] === edge[0] ? scene.tree : scene.cross).push(edge);
  return scene;
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

function depths(parents, n) {
  const depth = new Int32Array(n).fill(parents.length ? -1 : 0);
  for (let i = 0; i < parents.length; i++) {
    const way = [];
    let j = i;
    while (j >= 0 && depth[j] < 0) (way.push(j), j = parents[j]);
    let d = j < 0 ? -1 : depth[j];
    while (way.length) depth[way.pop()] = ++d;
  }
  return depth;
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

function lookUp(scene, text) {
  const wanted = text.trim().toLowerCase(), found = [];
  scene.lower ??= scene.rows.map((row) => row.split("\t", 2).map((s) => s.toLowerCase()));
  if (wanted) scene.lower.forEach(([label, name], i) => {
    const rank = label === wanted || name === wanted ? 3 : label.startsWith(wanted) ? 2 : label.includes(wanted) ? 1 : 0;
    if (rank) found.push([rank, scene.weight[i], i]);
  });
  return found.sort((a, b) => b[0] - a[0] || b[1] - a[1]).slice(0, 12).map((f) => f[2]);
}

/** The points of the picture nearest to point i by the distance of the plane, not of the screen: [[point, distance]]. */
function nearestTo(scene, i, count = NEAREST) {
  const { xy, geometry, c, unit } = scene, [x, y] = [xy[2 * i], xy[2 * i + 1]], best = [], scale = unit ? 1 : 1 / Math.sqrt(c);
  for (const j of scene.active) {
    if (j === i) continue;
    const d = scale * geometry.distance(x, y, xy[2 * j], xy[2 * j + 1]);
    if (best.length === count && d >= best[count - 1][1]) continue;
    let k = best.length;
    while (k > 0 && best[k - 1][1] > d) k--;
    best.splice(k, 0, [j, d]);
    if (best.length > count) best.pop();
  }
  return best;
}

/** The table of nearest points that a page without a kernel brings along: a function like `nearestTo`, or null. */
function readTable(model) {
  const ids = array(model, "_table", Uint32Array), gaps = array(model, "_table_gaps", Float32Array), k = model.get("_table_width");
  return ids.length ? (i) => Array.from({ length: k }, (_, a) => [ids[k * i + a], gaps[k * i + a]]) : null;
}

const viewAt = (scene, z) => scene.geometry.translation(...(scene.xy === scene.own ? z : dialled(z, scene.c)));

/** Everything at its place for this view: on the disk (out) and on the panel (place). */
function locate(scene, V) {
  scene.geometry.project(V, scene.xy, scene.out);
  if (scene.place !== scene.out) scene.chart.toAll(scene.out, scene.place);
}

/** Points of the picture inside a polygon on the panel. */
function within(scene, polygon) {
  const found = [], o = scene.place;
  for (const i of scene.active) {
    const x = o[2 * i], y = o[2 * i + 1];
    let inside = false;
    for (let a = 0, b = polygon.length - 1; a < polygon.length; b = a++) {
      const [px, py] = polygon[a], [qx, qy] = polygon[b];
      if (py > y !== qy > y && x < ((qx - px) * (y - py)) / (qy - py) + px) inside = !inside;
    }
    if (inside) found.push(i);
  }
  return found.sort((i, j) => i - j);
}
