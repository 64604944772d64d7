// The page around the canvas: style, search, legend, controls, what is said about the selected point.

const CSS = `
.wb-disk { --ink: var(--jp-ui-font-color1, light-dark(#1f2328, #e6e6e6)); --ground: var(--jp-layout-color0, light-dark(#fff, #16181d));
  color: var(--ink); background: var(--ground); font: 13px system-ui, "DejaVu Sans", sans-serif; max-width: 100%; padding: 4px; box-sizing: border-box }
.wb-disk .stage { position: relative; width: 100%; aspect-ratio: 1 }
.wb-disk canvas { position: absolute; inset: 0; width: 100%; height: 100% }
.wb-disk canvas.over { touch-action: none; cursor: grab; outline: none }
.wb-disk canvas.over:active { cursor: grabbing } .wb-disk.catching canvas.over { cursor: crosshair }
.wb-disk .stage:has(canvas:focus-visible)::after { content: ""; position: absolute; inset: 1px; border-radius: 50%; border: 2px solid #0072b2; pointer-events: none }
.wb-disk .tip { position: absolute; left: 0; top: 0; max-width: min(300px, 60%); padding: 6px 9px; border-radius: 6px; pointer-events: none;
  background: var(--ground); border: 1px solid color-mix(in srgb, var(--ink) 35%, transparent); box-shadow: 0 2px 8px #0004; line-height: 1.35; overflow-wrap: break-word }
.wb-disk .faint { opacity: .75; font-size: 12px }
.wb-disk .bar, .wb-disk .legend, .wb-disk .near { display: flex; flex-wrap: wrap; gap: 4px 12px; align-items: center; margin-top: 6px }
.wb-disk label { display: inline-flex; align-items: center; gap: 4px }
.wb-disk input[type=search], .wb-disk button, .wb-disk select { font: inherit; color: inherit; background: transparent; padding: 2px 6px;
  border: 1px solid color-mix(in srgb, var(--ink) 35%, transparent); border-radius: 4px }
.wb-disk select option { color: #1f2328; background: #fff }
.wb-disk input[type=search] { flex: 0 1 150px; min-width: 80px } .wb-disk input[type=range] { width: 90px }
.wb-disk button { cursor: pointer } .wb-disk button:disabled { opacity: .45; cursor: default }
.wb-disk button[aria-pressed=true] { background: #0072b2; color: #fff }
.wb-disk :is(button, input, select, summary):focus-visible { outline: 2px solid #0072b2; outline-offset: 1px }
.wb-disk summary { cursor: pointer; margin-top: 6px } .wb-disk .near { gap: 4px 6px }
.wb-disk .key { display: inline-flex; align-items: center; gap: 5px } .wb-disk .key i { width: 10px; height: 10px; border-radius: 50% }
.wb-disk .ramp { width: 140px; height: 10px; border-radius: 3px }
.wb-disk .readout { min-height: 1.4em; margin-top: 4px } .wb-disk output { min-width: 2.2em }`;

let serial = 0;

function furnish(el, scene, tools) {
  make("style", el, {}, CSS);
  // JupyterLab's shortcuts (arrows walk through cells) stay out of the widget
  const root = make("div", el, { class: "wb-disk", "data-lm-suppress-shortcuts": "true" });
  const stage = make("div", root, { class: "stage" }), list = `wb-disk-names-${++serial}`, of = scene.unit ? "Plane" : "Poincaré disk";
  const over = make("canvas", stage, { class: "over", tabindex: 0, role: "application", "aria-roledescription": of,
    "aria-label": `${of} with ${scene.n} points. Drag or use the arrow keys to move the plane, Home to return, double-click or Enter to centre a point, slash to search.` });
  const tip = make("div", stage, { class: "tip", role: "tooltip", hidden: "" });
  const bar = make("div", root, { class: "bar" });
  const find = make("input", bar, { type: "search", placeholder: "find…", "aria-label": "find a point by name", list });
  const names = make("datalist", bar, { id: list });
  const box = make("label", bar, { title: "Moving around a loop turns the plane (holonomy). Tick to undo the turning." });
  const upright = make("input", box, { type: "checkbox" });
  box.append(" upright");
  box.hidden = Boolean(scene.unit);
  const turn = make("span", bar, { class: "faint", role: "status" });
  make("span", bar, { class: "faint" }, "drag: move · double-click: centre · click: select · Home: back");
  const ui = { root, stage, over, tip, find, names, upright, turn };
  if (tools) Object.assign(ui, furnishTools(root, scene));
  ui.legend = make("div", root, { class: "legend" });
  ui.readout = make("div", root, { class: "readout", "aria-live": "polite" });
  ui.near = make("div", root, { class: "near" });
  return ui;
}

function furnishTools(root, scene) {
  const more = make("details", root), deepest = scene.depth.reduce((a, b) => Math.max(a, b), 0);
  make("summary", more, { class: "faint" }, "view, filter, lasso, save");
  const bar = make("div", more, { class: "bar" });
  const labelled = (text, tag, attributes) => {
    const label = make("label", bar, {}, text);
    return [make(tag, label, attributes), label];
  };
  const [chart, chartBox] = labelled("model ", "select", {});
  for (const [key, { title }] of Object.entries(PANELS)) chart.append(new Option(title, key));
  const [bend, bendBox] = labelled("c ", "input", { type: "range", min: -3, max: 2, step: 0.05, "aria-label": "curvature: directions and distances from the origin stay" });
  const bent = make("output", bendBox);
  const [deep, deepBox] = labelled("depth ≤ ", "input", { type: "range", min: 0, max: deepest, step: 1, "aria-label": "greatest depth shown" });
  const depth = make("output", deepBox);
  const below = make("button", bar, { type: "button", "aria-pressed": "false" }, "only below the selected");
  const lasso = make("button", bar, { type: "button", "aria-pressed": "false", title: "Draw around points with the mouse; also Shift and drag." }, "lasso");
  const png = make("button", bar, { type: "button" }, "PNG"), svg = make("button", bar, { type: "button" }, "SVG");
  chartBox.hidden = bendBox.hidden = Boolean(scene.unit);
  deepBox.hidden = below.hidden = !deepest;
  return { more, chart, bend, bent, deep, deepest, depth, below, lasso, png, svg };
}

function fillLegend(where, { title, colours, names, low, high }) {
  where.replaceChildren();
  if (title) make("strong", where, {}, title);
  if (names) names.forEach((name, k) => {
    const key = make("span", where, { class: "key" });
    make("i", key, { style: `background:${colours[k]}` });
    key.append(name);
  });
  else if (low !== undefined) {
    make("span", where, {}, low);
    make("span", where, { class: "ramp", style: `background:linear-gradient(90deg,${colours})`, role: "img", "aria-label": `colours from ${low} to ${high}` });
    make("span", where, {}, high);
  }
}

function fillTip(tip, scene, i) {
  const { label, name, gloss } = words(scene, i), path = pathToRoot(scene, i).slice(1).map((j) => words(scene, j).label);
  tip.replaceChildren();
  make("strong", tip, {}, label);
  if (name && name !== label) make("span", tip, { class: "faint" }, "  " + name);
  if (gloss) make("div", tip, {}, gloss);
  const shown = path.length > 9 ? [...path.slice(0, 5), "…", ...path.slice(-3)] : path;
  if (path.length) make("div", tip, { class: "faint" }, "↑ " + shown.join(" › "));
}

/** The nearest points of the selected one, each a button that goes there. */
function fillNear(where, scene, found, metric, go) {
  where.replaceChildren();
  if (!found.length) return;
  make("span", where, { class: "faint" }, `nearest ${metric}:`);
  for (const [j, d] of found) {
    const button = make("button", where, { type: "button", "data-point": j }, `${words(scene, j).label} `);
    make("span", button, { class: "faint" }, d.toFixed(2));
    button.onclick = () => go(j);
  }
}
