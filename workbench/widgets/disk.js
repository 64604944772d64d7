// A live view of the Poincaré disk: the plane moves by isometries, never by scaling.
// Runs as an anywidget in JupyterLab and, unchanged, in the offline page written by DiskView.to_html.
// disk.py joins isometry.js, painting.js and this file into one module: no build step, nothing fetched.

// ---- The page around the canvas ------------------------------------------------------------------------

const CSS = `
.wb-disk { --ink: var(--jp-ui-font-color1, light-dark(#1f2328, #e6e6e6)); --ground: var(--jp-layout-color0, light-dark(#fff, #16181d));
  color: var(--ink); background: var(--ground); font: 13px system-ui, "DejaVu Sans", sans-serif; max-width: 100%; padding: 4px; box-sizing: border-box }
.wb-disk .stage { position: relative; width: 100%; aspect-ratio: 1 }
.wb-disk canvas { position: absolute; inset: 0; width: 100%; height: 100% }
.wb-disk canvas.over { touch-action: none; cursor: grab; outline: none }
.wb-disk canvas.over:active { cursor: grabbing }
.wb-disk .stage:has(canvas:focus-visible)::after { content: ""; position: absolute; inset: 1px; border-radius: 50%; border: 2px solid #0072b2; pointer-events: none }
.wb-disk .tip { position: absolute; left: 0; top: 0; max-width: min(300px, 60%); padding: 6px 9px; border-radius: 6px; pointer-events: none;
  background: var(--ground); border: 1px solid color-mix(in srgb, var(--ink) 35%, transparent); box-shadow: 0 2px 8px #0004; line-height: 1.35; overflow-wrap: break-word }
.wb-disk .faint { opacity: .75; font-size: 12px }
.wb-disk .bar, .wb-disk .legend { display: flex; flex-wrap: wrap; gap: 4px 12px; align-items: center; margin-top: 6px }
.wb-disk .bar input[type=search] { flex: 0 1 150px; min-width: 80px; font: inherit; color: inherit; background: transparent; padding: 2px 6px;
  border: 1px solid color-mix(in srgb, var(--ink) 35%, transparent); border-radius: 4px }
.wb-disk .key { display: inline-flex; align-items: center; gap: 5px } .wb-disk .key i { width: 10px; height: 10px; border-radius: 50% }
.wb-disk .ramp { width: 140px; height: 10px; border-radius: 3px }
.wb-disk .readout { min-height: 1.4em; margin-top: 4px }`;

let serial = 0;

function make(tag, where, attributes = {}, text = "") {
  const node = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) node.setAttribute(k, v);
  node.textContent = text;
  where.append(node);
  return node;
}

function furnish(el, n) {
  make("style", el, {}, CSS);
  // JupyterLab's shortcuts (arrows walk through cells) stay out of the widget
  const root = make("div", el, { class: "wb-disk", "data-lm-suppress-shortcuts": "true" });
  const stage = make("div", root, { class: "stage" }), list = `wb-disk-names-${++serial}`;
  const base = make("canvas", stage, { "aria-hidden": "true" });
  const over = make("canvas", stage, { class: "over", tabindex: 0, role: "application", "aria-roledescription": "Poincaré disk",
    "aria-label": `Poincaré disk with ${n} points. Drag or use the arrow keys to move the plane, Home to return, double-click or Enter to centre a point.` });
  const tip = make("div", stage, { class: "tip", role: "tooltip", hidden: "" });
  const bar = make("div", root, { class: "bar" });
  const find = make("input", bar, { type: "search", placeholder: "find…", "aria-label": "find a point by name", list });
  const names = make("datalist", bar, { id: list });
  const box = make("label", bar, { title: "Moving around a loop turns the plane (holonomy). Tick to undo the turning." });
  const upright = make("input", box, { type: "checkbox" });
  box.append(" upright");
  make("span", bar, { class: "faint" }, "drag: move · double-click: centre · click: select · Home: back");
  const legend = make("div", root, { class: "legend" });
  const readout = make("div", root, { class: "readout", "aria-live": "polite" });
  return { root, stage, base, over, tip, find, names, upright, legend, readout };
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

function lookUp(scene, text) {
  const wanted = text.trim().toLowerCase(), found = [];
  scene.lower ??= scene.rows.map((row) => row.split("\t", 2).map((s) => s.toLowerCase()));
  if (wanted) scene.lower.forEach(([label, name], i) => {
    const rank = label === wanted || name === wanted ? 3 : label.startsWith(wanted) ? 2 : label.includes(wanted) ? 1 : 0;
    if (rank) found.push([rank, scene.weight[i], i]);
  });
  return found.sort((a, b) => b[0] - a[0] || b[1] - a[1]).slice(0, 12).map((f) => f[2]);
}

// ---- The widget ----------------------------------------------------------------------------------------

function render({ model, el }) {
  let scene = readScene(model), V = translation(...model.get("center"));
  const ui = furnish(el, scene.n), base = ui.base.getContext("2d"), over = ui.over.getContext("2d");
  let S = 0, R = 0, theme, hover = -1, chosen = -1, home = model.get("center"), told = home;
  let queued = 0, settle = 0, flight = 0, goal = null, fullCost = 0, budget = 6000, moving = false;
  const stats = { frames: 0, quick: 0, full: 0 };

  const share = (centred, selected = chosen) => { // to Python, once a gesture is over
    told = centred;
    chosen = selected;
    model.set("center", centred);
    model.set("selected", selected);
    model.save_changes();
    tell();
  };
  const tell = () => {
    ui.readout.textContent = chosen < 0 || !scene.n ? "" : pathToRoot(scene, chosen).map((j) => words(scene, j).label).join(" › ");
  };

  function frame() {
    queued = 0;
    const started = performance.now(), quick = moving && fullCost > 30;
    project(V, scene.xy, scene.out);
    for (const ctx of [base, over]) {
      ctx.setTransform(1, 0, 0, 1, 0, 0);
      ctx.clearRect(0, 0, ctx.canvas.width, ctx.canvas.height);
      ctx.setTransform(ctx.canvas.width / S, 0, 0, ctx.canvas.width / S, ctx.canvas.width / 2, ctx.canvas.width / 2);
    }
    paintScene(base, scene, R, theme, quick ? budget : Infinity);
    paintOver();
    stats.frames++;
    requestAnimationFrame(() => { // by now the browser has shown it, so rasterising is in the measure
      const ms = performance.now() - started;
      stats[quick ? "quick" : "full"] = ms;
      if (!quick) fullCost = ms;
      else budget = Math.min(20000, Math.max(400, budget * Math.min(1.15, Math.max(0.5, 30 / ms))));
    });
    clearTimeout(settle);
    // At rest: everything, at full quality. A held plane may move again any moment, so there rest takes longer.
    if (quick) settle = setTimeout(() => ask(false), grip ? Math.max(150, 2 * fullCost) : 150);
  }
  function paintOver() { // the pointer's company has its own canvas, so that hovering repaints no points
    over.clearRect(-S, -S, 2 * S, 2 * S);
    if (chosen >= 0 && chosen !== hover) paintPath(over, scene, R, theme, chosen, hover < 0);
    if (hover >= 0) paintPath(over, scene, R, theme, hover, true);
    if (scene.rows.length) paintLabels(over, scene, R, theme, [...new Set([hover, chosen])].filter((i) => i >= 0));
  }
  const ask = (isMoving) => {
    moving = isMoving;
    queued ||= requestAnimationFrame(frame);
  };

  function fly(target, selected, level = ui.upright.checked) { // level: also undo the turn on the way
    cancelAnimationFrame(flight);
    goal = [target, selected];
    told = target;
    const from = V, began = performance.now(), still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const span = still ? 0 : 250 + 60 * Math.min(2 * Math.atanh(Math.hypot(...apply(V, ...target))), 10);
    const turn = level ? turned(glide(from, target, 1)) : 0;
    const step = () => {
      const t = span ? Math.min((performance.now() - began) / span, 1) : 1, eased = t * t * (3 - 2 * t);
      V = compose(rotation(-turn * eased), glide(from, target, eased));
      ask(t < 1);
      if (t < 1) flight = requestAnimationFrame(step);
      else {
        goal = null;
        share([...target], selected);
      }
    };
    step();
  }
  const halt = () => { // a hand on the plane ends any flight
    cancelAnimationFrame(flight);
    if (goal) told = centre(V);
    goal = null;
  };
  const position = (i) => [scene.xy[2 * i], scene.xy[2 * i + 1]];
  const nearest = ([x, y], within) => {
    const o = scene.out;
    let best = -1, least = within * within;
    for (let i = 0; i < scene.n; i++) {
      const d = (o[2 * i] - x) ** 2 + (o[2 * i + 1] - y) ** 2;
      if (d < least) (least = d), (best = i);
    }
    return best;
  };

  const at = (e) => {
    const b = ui.over.getBoundingClientRect();
    return [(e.clientX - b.left - b.width / 2) / (R * b.width / S), -(e.clientY - b.top - b.height / 2) / (R * b.width / S)];
  };
  const inside = ([x, y]) => {
    const r = Math.hypot(x, y);
    return r > 0.98 ? [(x * 0.98) / r, (y * 0.98) / r] : [x, y];
  };
  const point = (i, where) => {
    if (i !== hover) {
      hover = i;
      ui.tip.hidden = i < 0;
      if (i >= 0) fillTip(ui.tip, scene, i);
      paintOver();
    }
    if (i < 0) return;
    const x = S / 2 + R * where[0], y = S / 2 - R * where[1], w = ui.tip.offsetWidth, h = ui.tip.offsetHeight;
    const left = x + 16 + w < S ? x + 16 : x - 16 - w, top = y + 16 + h < S ? y + 16 : y - 12 - h;
    ui.tip.style.transform = `translate(${Math.max(0, Math.min(left, S - w))}px,${Math.max(0, Math.min(top, S - h))}px)`;
  };

  let grip = null, lastTap = null; // grip: where the plane is held, and how far the pointer has gone
  ui.over.onpointerdown = (e) => {
    if (!e.isPrimary || e.button !== 0) return;
    halt();
    ui.over.setPointerCapture(e.pointerId);
    grip = { p: inside(at(e)), x: e.clientX, y: e.clientY, moved: false };
  };
  ui.over.onpointermove = (e) => {
    if (!grip) return point(nearest(at(e), 10 / R), at(e));
    if (!e.isPrimary) return;
    if (!grip.moved && Math.hypot(e.clientX - grip.x, e.clientY - grip.y) < 4) return; // a click trembles
    if (!grip.moved) point(-1);
    const q = inside(at(e));
    V = (ui.upright.checked ? dragUpright : drag)(V, grip.p, q);
    grip = { ...grip, p: q, moved: true };
    ask(true);
  };
  ui.over.onpointerup = ui.over.onpointercancel = (e) => {
    if (!grip || !e.isPrimary) return;
    const moved = grip.moved, z = at(e), i = nearest(z, 12 / R);
    grip = null;
    ask(false);
    if (moved) return share(centre(V));
    if (e.type === "pointercancel") return;
    const again = lastTap && e.timeStamp - lastTap.time < 400 && Math.hypot(e.clientX - lastTap.x, e.clientY - lastTap.y) < 12;
    lastTap = again ? null : { time: e.timeStamp, x: e.clientX, y: e.clientY };
    const target = again ? nearest(z, 2) : i; // double: the nearest wherever it is; single: only what was hit
    if (again && target >= 0) (point(-1), fly(position(target), target));
    else (point(i, z), share(told, i), paintOver());
  };
  ui.over.onpointerleave = () => grip || point(-1);
  ui.over.onkeydown = (e) => {
    const step = 0.12, way = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[e.key];
    if (way) {
      halt();
      V = (ui.upright.checked ? dragUpright : drag)(V, [0, 0], way);
      ask(true);
    } else if (e.key === "Home") fly(home, chosen, true);
    else if (e.key === "Enter") {
      const i = nearest([0, 0], 2);
      if (i >= 0) fly(position(i), i);
    } else return;
    e.preventDefault();
  };
  ui.over.onkeyup = (e) => e.key.startsWith("Arrow") && share(centre(V));
  ui.find.oninput = () => ui.names.replaceChildren(...lookUp(scene, ui.find.value).map((i) => new Option(words(scene, i).gloss, words(scene, i).label)));
  ui.find.onchange = () => {
    const [i] = lookUp(scene, ui.find.value);
    if (i !== undefined) fly(position(i), i);
  };
  ui.upright.onchange = () => {
    model.set("upright", ui.upright.checked);
    model.save_changes();
  };

  const onData = () => {
    const { rows, lower } = scene;
    scene = Object.assign(readScene(model), { rows, lower });
    dress();
  };
  let texts = 0;
  const onText = async () => {
    const mine = ++texts, rows = await readText(model);
    if (mine < texts) return; // a later text has come meanwhile
    Object.assign(scene, { rows, lower: undefined }); // the scene of now: points may have come, too
    tell();
    ask(false);
  };
  const onCentre = () => {
    const c = model.get("center");
    if (c[0] !== told[0] || c[1] !== told[1]) fly(c, model.get("selected"));
  };
  const onSelected = () => { // from Python: the view follows; center, if it came in the same message, says where
    const i = model.get("selected"), c = model.get("center");
    if (i === chosen) return;
    chosen = i;
    if (i >= 0 && c[0] === told[0] && c[1] === told[1]) fly(position(i), i);
    tell();
    ask(false);
  };
  const onUpright = () => {
    ui.upright.checked = model.get("upright");
    if (ui.upright.checked) fly(...(goal ?? [centre(V), chosen]));
  };
  const dress = () => { // sizes and colours, from the page we are in
    ui.root.style.width = `${model.get("size") + 8}px`;
    S = ui.stage.clientWidth || model.get("size");
    R = S / 2 - 4;
    scene.dot = (S / 640) * (scene.n > 20000 ? 0.75 : scene.n > 2000 ? 1.15 : 1.35);
    for (const canvas of [ui.base, ui.over]) canvas.width = canvas.height = Math.round(S * (window.devicePixelRatio || 1));
    const style = getComputedStyle(ui.root);
    theme = { ink: style.color, ground: style.backgroundColor, font: `12px ${style.fontFamily}` };
    fillLegend(ui.legend, scene.legend);
    ask(false);
  };

  const events = { "change:_xy": onData, "change:_text": onText, "change:center": onCentre, "change:selected": onSelected,
    "change:upright": onUpright, "change:size": dress };
  for (const [name, f] of Object.entries(events)) model.on(name, f);
  const resized = new ResizeObserver(dress), themed = new MutationObserver(dress), dark = matchMedia("(prefers-color-scheme: dark)");
  resized.observe(ui.stage);
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name"] });
  dark.addEventListener("change", dress);

  chosen = model.get("selected");
  ui.upright.checked = model.get("upright");
  dress();
  onText();
  ui.root.__disk = { // for tests and for the curious in the console
    stats, nearest, get view() { return V; }, get scene() { return scene; }, get hover() { return hover; }, get selected() { return chosen; },
    get centre() { return centre(V); },
    at: (i) => { const b = ui.over.getBoundingClientRect(), [x, y] = apply(V, ...position(i)), k = (R * b.width) / S;
      return [b.left + b.width / 2 + k * x, b.top + b.height / 2 - k * y]; },
    label: (i) => words(scene, i).label,
  };
  return () => {
    for (const [name, f] of Object.entries(events)) model.off(name, f);
    resized.disconnect();
    themed.disconnect();
    dark.removeEventListener("change", dress);
    cancelAnimationFrame(queued);
    cancelAnimationFrame(flight);
    clearTimeout(settle);
  };
}

export default { render };
