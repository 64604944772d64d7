// Points of the hyperbolic plane in several models at once: drag one and it moves in all, and the numbers with it.
// Runs as an anywidget in JupyterLab and, unchanged, in the offline page written by PlaneView.to_html.
// plane.py joins isometry.js, models.js, measure.js, page.js and this file into one module: no build step, nothing fetched.

const PLANE_CSS = `
.wb-plane { --ink: var(--jp-ui-font-color1, light-dark(#1f2328, #e6e6e6)); --ground: var(--jp-layout-color0, light-dark(#fff, #16181d));
  --faint: color-mix(in srgb, var(--ink) 30%, transparent); color: var(--ink); background: var(--ground);
  font: 13px system-ui, "DejaVu Sans", sans-serif; max-width: 100%; padding: 4px; box-sizing: border-box }
.wb-plane .panels { display: grid; gap: 8px; grid-template-columns: repeat(auto-fit, minmax(min(100%, max(150px, calc((100% - 8px * (var(--columns) - 1)) / var(--columns)))), 1fr)) }
.wb-plane figure { margin: 0; min-width: 0 } .wb-plane figcaption { text-align: center; font-weight: 600 }
.wb-plane canvas { width: 100%; aspect-ratio: 1; display: block; touch-action: none; cursor: grab; border-radius: 6px }
.wb-plane canvas:active { cursor: grabbing }
.wb-plane .bar { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: center; margin: 6px 0 }
.wb-plane .bar label { display: inline-flex; gap: 6px; align-items: center } .wb-plane .bar input[type=range] { width: 110px }
.wb-plane .bar output { min-width: 2.2em; font-variant-numeric: tabular-nums }
.wb-plane .scroll { overflow-x: auto; container-type: inline-size }
.wb-plane table { border-collapse: collapse; font: inherit; font-size: 14px; font-variant-numeric: tabular-nums; margin: 0 auto }
.wb-plane td, .wb-plane th { padding: 2px 12px; text-align: right; border: 0; background: none; white-space: nowrap; color: inherit }
.wb-plane tbody th { text-align: left; font-weight: 400 } .wb-plane tbody tr { background: none !important; border-top: 1px solid var(--faint) }
@container (max-width: 480px) { .wb-plane table { font-size: 12px } .wb-plane td, .wb-plane th { padding: 2px 4px } .wb-plane tbody th { white-space: normal } .wb-plane th button { padding: 1px 5px } }
.wb-plane tr.faint { opacity: .7 } .wb-plane td.sum { font-weight: 600 }
.wb-plane button { font: inherit; font-weight: 700; color: inherit; background: transparent; border: 1.5px solid var(--faint); border-radius: 12px; padding: 1px 9px; cursor: pointer }
.wb-plane button i { display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin-right: 5px }
.wb-plane :is(button, input):focus-visible { outline: 2px solid #0072b2; outline-offset: 1px }
.wb-plane .hint { margin-top: 8px; opacity: .75; font-size: 12px }
.wb-plane .said { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }`;

const LETTERS = "ABCDEF", ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const degrees = (x) => (x * 180) / Math.PI;

// ---- What a panel draws ----------------------------------------------------------------------------------

function stroke(pen, line, colour, width, dash = []) {
  const { ctx, place } = pen;
  ctx.beginPath();
  line.forEach((p, k) => ctx[k ? "lineTo" : "moveTo"](...place(p)));
  Object.assign(ctx, { strokeStyle: colour, lineWidth: width, lineJoin: "round" });
  ctx.setLineDash(dash);
  ctx.stroke();
  ctx.setLineDash([]);
}

const circleAt = (f) => Array.from({ length: 193 }, (_, k) => f(Math.cos((Math.PI * k) / 96), Math.sin((Math.PI * k) / 96)));

/** The paper itself with the grid: the rim of a disk, the edge of the half-plane; the sheet cut off at a height, its
 *  axis, the light cone (dashed), and the Klein disk, which lies in the sheet's tangent plane and is pierced by rays from the apex. */
function paper(pen, name, shown, grid) {
  const { ctx, theme, place } = pen, { faint, ink } = theme;
  ctx.fillStyle = theme.tint;
  const fill = (line) => (stroke(pen, line, ink, 1.2), ctx.fill());
  if (name === "flat") return fill([[-2, -2], [2, -2], [2, 2], [-2, 2], [-2, -2]]);
  if (name === "half-plane") fill([[-3, 0], [3, 0], [3, 6], [-3, 6], [-3, 0]]);
  if (name === "disk" || name === "klein") fill(circleAt((x, y) => [x, y]));
  if (name !== "hyperboloid") return grid && grid();
  const see = ([x, y, t]) => [x, y * BACK + t * UP], top = 4, wide = Math.sqrt(top * top - 1);
  const sheet = circleAt((x, y) => see([wide * x, wide * y, top]));
  stroke(pen, circleAt((x, y) => see([top * x, top * y, top])), faint, 1, [5, 4]);
  const [x, y] = place(see([0, 0, 1])), shade = ctx.createRadialGradient(x, y, 0, x, y, place([wide, 0])[0] - x);
  shade.addColorStop(0, theme.deep);
  shade.addColorStop(1, theme.tint);
  ctx.fillStyle = shade;
  fill(sheet);
  if (grid) {
    ctx.save();
    ctx.clip(); // the path is still the sheet's edge
    grid();
    ctx.restore();
  }
  stroke(pen, [see([-top, 0, top]), [0, 0], see([top, 0, top])], faint, 1, [5, 4]);
  stroke(pen, [[0, 0], see([0, 0, top + 1])], ink, 1.2);
  stroke(pen, circleAt((x, y) => see([x, y, 1])), ink, 1);
  for (const [x, y, t] of shown) stroke(pen, [[0, 0], see([x / t, y / t, 1]), see([x, y, t])], ink, 0.8, [2, 3]);
}

const GRID = [0.5, 1, 1.5, 2, 3, 4].map((r) => circleAt((x, y) => [x * Math.tanh(r / 2), y * Math.tanh(r / 2)]));
for (let k = 0; k < 12; k++) GRID.push(Array.from({ length: 41 }, (_, j) =>
  [Math.cos((Math.PI * k) / 6) * Math.tanh(j / 16), Math.sin((Math.PI * k) / 6) * Math.tanh(j / 16)]));

function drawPanel(pen, name, state) {
  const { ctx, place, size, theme } = pen, { to } = CHARTS[name], { points, view, c, radius, grid, held } = state;
  const flat = name === "flat", drawn = points.map(toSheet);
  ctx.clearRect(0, 0, size, size);
  const web = () => GRID.forEach((line) => stroke(pen, line.map((z) => to(toSheet(apply(view, ...z)))), theme.grid, 1));
  paper(pen, name, drawn, grid && web);
  points.forEach((z, k) => {
    if (!radius) return;
    const r = radius * Math.sqrt(c);
    stroke(pen, flat ? circleAt((x, y) => [z[0] + (r / 2) * x, z[1] + (r / 2) * y]) : ring(z, r).map(to), theme.colours[k], 1.6);
  });
  for (let k = 0; k < (points.length > 2 ? points.length : 1); k++) {
    const u = points[k], v = points[(k + 1) % points.length];
    stroke(pen, flat ? [u, v] : side(u, v).map(to), theme.ink, 2);
  }
  drawn.forEach((X, k) => {
    const [x, y] = place(to(X)), dot = k === held ? 9 : 7, above = y < 30 ? 19 : -18;
    ctx.beginPath();
    ctx.arc(x, y, dot, 0, 7);
    Object.assign(ctx, { fillStyle: theme.colours[k], strokeStyle: k === held ? theme.ink : theme.ground, lineWidth: 2 });
    ctx.fill();
    ctx.stroke();
    Object.assign(ctx, { font: theme.font, textAlign: "center", textBaseline: "middle", lineWidth: 3.5, strokeStyle: theme.ground, fillStyle: theme.ink });
    ctx.strokeText(LETTERS[k], x, y + above);
    ctx.fillText(LETTERS[k], x, y + above);
  });
}

// ---- The table -------------------------------------------------------------------------------------------

const digits = (x, unit = "") => (x === null || x === undefined ? "–" : x.toFixed(unit === "°" ? 2 : 4) + unit);
const total = (xs) => xs && xs.reduce((a, b) => a + b, 0);

/** Rows of [name, one text a point, text for all]. */
function rowsOf({ lengths, angles, angle_sum, area }, c, corners, suffix = "") {
  const rows = [[`side to the next${suffix}`, lengths.map((d) => digits(d)), digits(total(lengths))]];
  if (corners < 3) return rows;
  const each = (unit, f) => Array.from({ length: corners }, (_, k) => digits(angles && f(angles[k]), unit));
  rows.push([`angle${suffix}`, each("°", degrees), digits(angles && degrees(angle_sum), "°")]);
  if (!suffix) {
    rows.push(["angle, radians", each("", (a) => a), digits(angle_sum)]);
    const most = (corners - 2) * Math.PI, scale = c === 1 ? "" : ` / ${c}`;
    rows.push([`area = (${corners === 3 ? "" : corners - 2}π − angle sum)${scale}`, [], angles ? digits((most - angle_sum) / c) : "sides cross"]);
  } else rows.push([`area${suffix}`, [], digits(area)]);
  return rows;
}

function fillTable(cells, rows) {
  rows.forEach(([name, each, all], k) => {
    const row = cells[k];
    row.name.textContent = name;
    row.each.forEach((cell, j) => (cell.textContent = each[j] ?? ""));
    row.all.textContent = all;
  });
}

function furnishPlane(el, names, corners, colours, withFlat) {
  make("style", el, {}, PLANE_CSS);
  const root = make("div", el, { class: "wb-plane", "data-lm-suppress-shortcuts": "true", role: "group",
    "aria-label": `${corners} points of the hyperbolic plane in ${names.length} models; each point has a button that takes the arrow keys` });
  const columns = names.length < 4 ? names.length : names.length === 4 ? 2 : 3;
  const panels = make("div", root, { class: "panels", style: `--columns: ${columns}` });
  const canvases = names.map((name) => {
    const figure = make("figure", panels);
    const canvas = make("canvas", figure, { role: "img", "aria-label": `the points in the model ${CHARTS[name].title}`, "data-model": name });
    make("figcaption", figure, {}, CHARTS[name].title);
    return canvas;
  });
  const bar = make("div", root, { class: "bar" });
  const dial = (text, hint, min, max, step) => {
    const label = make("label", bar, { title: hint }, text);
    const input = make("input", label, { type: "range", min, max, step }), out = make("output", label);
    return { input, out };
  };
  const c = dial("curvature −c, c =", "how strongly the plane is curved: same drawing, other lengths", 0.1, 4, 0.1);
  const radius = dial("circles of radius", "a circle of this true radius about each point; 0 for none", 0, 2, 0.1);
  const box = make("label", bar, { title: "circles and rays about a point of the plane, they move with it" });
  const grid = make("input", box, { type: "checkbox" });
  box.append("grid");
  const home = make("button", bar, { type: "button" }, "back");
  const table = make("table", make("div", root, { class: "scroll" }), { "aria-label": "what is measured" });
  const head = make("tr", make("thead", table)), body = make("tbody", table);
  make("th", head);
  const handles = Array.from({ length: corners }, (_, k) => {
    const button = make("button", make("th", head, { scope: "col" }), { type: "button", "aria-label": `point ${LETTERS[k]}: the arrow keys move it, with Shift in small steps` });
    make("i", button, { style: `background:${colours[k]}` });
    button.append(LETTERS[k]);
    return button;
  });
  const plane = make("button", make("th", head, { scope: "col" }), { type: "button", "aria-label": "the whole plane: the arrow keys move it by an isometry" }, "all");
  const lines = (corners < 3 ? 1 : 4) + (withFlat ? (corners < 3 ? 1 : 3) : 0);
  const cells = Array.from({ length: lines }, (_, k) => {
    const row = make("tr", body, k >= (corners < 3 ? 1 : 4) ? { class: "faint" } : {});
    return { name: make("th", row, { scope: "row" }), each: handles.map(() => make("td", row)), all: make("td", row, { class: "sum" }) };
  });
  make("div", root, { class: "hint" }, "Drag a point in any model; drag the empty plane to move everything by an isometry. Keys: Tab to a letter, then the arrows.");
  const said = make("div", root, { class: "said", role: "status" });
  return { root, canvases, c, radius, grid, home, handles, plane, cells, said };
}

// ---- The widget ------------------------------------------------------------------------------------------

function render({ model, el }) {
  const names = model.get("models"), colours = model.get("_colours"), withFlat = names.includes("flat");
  let points = model.get("points").map((p) => [...p]), view = IDENTITY, told = JSON.stringify(points), held = -1;
  const start = points.map((p) => [...p]), corners = points.length;
  const ui = furnishPlane(el, names, corners, colours, withFlat);
  let theme, pens = [], queued = 0, grip = null;

  const c = () => model.get("c");
  const measured = () => ({ ...measure(points, c()), ...(withFlat ? { flat: measureFlat(points, c()) } : {}) });

  function paint() {
    queued = 0;
    const state = { points, view, held, c: c(), radius: model.get("radius"), grid: model.get("grid") };
    pens.forEach((pen, k) => drawPanel(pen, names[k], state));
    const numbers = measured(), rows = rowsOf(numbers, c(), corners);
    fillTable(ui.cells, withFlat ? [...rows, ...rowsOf(numbers.flat, c(), corners, ", if flat")] : rows);
  }
  const ask = () => (queued ||= requestAnimationFrame(paint));

  function share() { // to Python, once a gesture is over
    told = JSON.stringify(points);
    model.set("points", points.map((p) => [...p]));
    model.save_changes();
    const { lengths, angle_sum, area } = measured();
    ui.said.textContent = corners < 3 ? `distance ${digits(lengths[0])}` : angle_sum === null ? "sides cross" :
      `angle sum ${digits(degrees(angle_sum), "°")}, area ${digits(area)}`;
  }
  function movePlane(from, step) { // from: points and view as they were when the plane was grabbed
    const moved = from.points.map((z) => apply(step, ...z));
    if (!moved.every((z) => Math.hypot(...z) < FARTHEST)) return;
    [points, view] = [moved, compose(step, from.view)];
    ask();
  }
  const movePoint = (k, z) => (points = points.map((p, j) => (j === k ? z : p)), ask());

  names.forEach((name, k) => {
    const canvas = ui.canvases[k], chart = CHARTS[name];
    const at = (e) => {
      const b = canvas.getBoundingClientRect();
      return pens[k].back([((e.clientX - b.left) * pens[k].size) / b.width, ((e.clientY - b.top) * pens[k].size) / b.height]);
    };
    const near = (e) => {
      const b = canvas.getBoundingClientRect(), reach = e.pointerType === "touch" ? 28 : 16;
      const gaps = points.map((z) => {
        const [x, y] = pens[k].place(chart.to(toSheet(z)));
        return Math.hypot(x - e.clientX + b.left, y - e.clientY + b.top);
      });
      const best = gaps.indexOf(Math.min(...gaps));
      return gaps[best] < reach ? best : -1;
    };
    canvas.onpointerdown = (e) => {
      if (!e.isPrimary || e.button !== 0) return;
      canvas.setPointerCapture(e.pointerId);
      const point = near(e);
      (point < 0 ? ui.plane : ui.handles[point]).focus({ preventScroll: true });
      e.preventDefault(); // or the focus would go to the page
      grip = { point, start: chart.from(at(e)), points, view };
      held = point;
      ask();
    };
    canvas.onpointermove = (e) => {
      if (!grip || !e.isPrimary) return;
      const z = chart.from(at(e));
      if (grip.point >= 0) movePoint(grip.point, z);
      else movePlane(grip, drag(IDENTITY, grip.start, z));
    };
    canvas.onpointerup = canvas.onpointercancel = (e) => {
      if (!grip || !e.isPrimary) return;
      grip = null;
      share();
    };
  });
  [...ui.handles, ui.plane].forEach((button, k) => {
    button.onfocus = button.onblur = (e) => (held = e.type === "focus" && k < corners ? k : -1, ask());
    button.onkeydown = (e) => {
      const way = ARROWS[e.key], step = Math.tanh(e.shiftKey ? 0.005 : 0.05);
      if (!way) return;
      e.preventDefault();
      const [x, y] = [way[0] * step, way[1] * step];
      if (k < corners) movePoint(k, heldWithin(apply(inverse(translation(...points[k])), x, y)));
      else movePlane({ points, view }, translation(-x, -y));
    };
    button.onkeyup = (e) => ARROWS[e.key] && share();
  });
  const reset = () => ([points, view] = [start.map((p) => [...p]), IDENTITY], share(), ask());
  ui.home.onclick = reset;
  for (const key of ["c", "radius"]) {
    ui[key].input.oninput = () => model.set(key, Number(ui[key].input.value));
    ui[key].input.onchange = () => model.save_changes();
  }
  ui.grid.onchange = () => (model.set("grid", ui.grid.checked), model.save_changes());

  const onDials = () => {
    for (const key of ["c", "radius"]) {
      ui[key].input.value = model.get(key);
      ui[key].out.textContent = Number(model.get(key).toPrecision(3));
    }
    ui.grid.checked = model.get("grid");
    ask();
  };
  const onPoints = () => { // from Python
    const came = model.get("points");
    if (JSON.stringify(came) === told) return;
    [points, told] = [came.map((p) => [...p]), JSON.stringify(came)];
    ask();
  };
  const dress = () => { // sizes and colours, from the page we are in
    ui.root.style.width = `${model.get("size") + 8}px`;
    const style = getComputedStyle(ui.root), mix = (share) => `color-mix(in srgb, ${style.color} ${share}%, ${style.backgroundColor})`;
    theme = { ink: style.color, ground: style.backgroundColor, colours, font: `600 14px ${style.fontFamily}`,
      faint: mix(45), grid: mix(22), tint: mix(4), deep: mix(20) };
    pens = ui.canvases.map((canvas, k) => {
      const size = canvas.clientWidth || 300, sharp = window.devicePixelRatio || 1, [left, bottom, width] = CHARTS[names[k]].window;
      canvas.width = canvas.height = Math.round(size * sharp);
      const ctx = canvas.getContext("2d"), s = size / width;
      ctx.setTransform(canvas.width / size, 0, 0, canvas.width / size, 0, 0);
      return { ctx, size, theme, place: ([x, y]) => [(x - left) * s, size - (y - bottom) * s], back: ([x, y]) => [left + x / s, bottom + (size - y) / s] };
    });
    ask();
  };

  const events = { "change:points": onPoints, "change:c": onDials, "change:radius": onDials, "change:grid": onDials, "change:size": dress };
  const unfollow = follow(model, events, ui.root, dress);
  onDials();
  dress();
  ui.root.__plane = { // for tests and for the curious in the console
    get points() { return points; }, get numbers() { return measured(); }, get view() { return view; },
    at: (name, k) => { // where a point is drawn, in the page
      const i = names.indexOf(name), b = ui.canvases[i].getBoundingClientRect(), [x, y] = pens[i].place(CHARTS[name].to(toSheet(points[k])));
      return [b.left + x, b.top + y];
    },
  };
  return () => {
    unfollow();
    cancelAnimationFrame(queued);
  };
}

export default { render };
