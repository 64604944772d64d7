// A live view of the Poincaré disk: the plane moves by isometries, never by scaling.
// Runs as an anywidget in JupyterLab and, unchanged, in the offline page written by DiskView.to_html.
// disk.py joins the files that it lists into one module: no build step, nothing fetched.

const MANY = 3000; // points from which WebGL2 is worth one of the 8 to 16 contexts that a page may have

/** Something readable instead of nothing where the view cannot be drawn. */
function render(context) {
  try {
    return draw(context);
  } catch (e) {
    console.error(e);
    make("p", context.el, { role: "alert" }, `This view cannot be drawn here (${e.message}). A present-day browser with JavaScript can; the kernel is not affected.`);
  }
}

function draw({ model, el }) {
  let scene = readScene(model), V = viewAt(scene, model.get("center"));
  const ui = furnish(el, scene, model.get("tools")), over = ui.over.getContext("2d");
  let painter = null, lasso = null;
  let S = 0, R = 0, theme, hover = -1, chosen = -1, home = model.get("center"), told = home;
  let queued = 0, settle = 0, flight = 0, goal = null, fullCost = 0, budget = 6000, moving = false;
  const stats = { frames: 0, quick: 0, full: 0 };

  const own = (z) => [...(scene.xy === scene.own ? z : dialled(z, 1 / scene.c))]; // Python's coordinates are those of c = 1
  const seen = (z) => [...(scene.xy === scene.own ? z : dialled(z, scene.c))];
  const share = (centred, selected = chosen) => { // to Python, once a gesture is over
    told = centred;
    chosen = selected;
    model.set("center", centred);
    model.set("selected", selected);
    model.save_changes();
    tell();
  };
  const tell = () => {
    ui.readout.textContent = chosen >= 0 ? pathToRoot(scene, chosen).map((j) => words(scene, j).label).join(" › ")
      : scene.lassoed.length ? `${scene.lassoed.length.toLocaleString()} points in the lasso` : "";
    const known = model.get("_near"), fromPython = known.of === chosen && chosen >= 0; // measured in all dimensions there
    const found = chosen < 0 ? [] : fromPython ? known.near : scene.table ? scene.table(chosen) : nearestTo(scene, chosen);
    fillNear(ui.near, scene, found, fromPython || scene.table ? model.get("metric") : "on the disk", (j) => fly(position(j), j));
    const angle = Math.round((-360 / Math.PI) * scene.geometry.turned(V));
    ui.turn.textContent = angle && !ui.upright.checked ? `turned by ${angle}°` : "";
    if (ui.below) ui.below.disabled = chosen < 0 && ui.below.getAttribute("aria-pressed") === "false";
  };

  function frame() {
    queued = 0;
    const started = performance.now(), quick = moving && fullCost > 30;
    locate(scene, V);
    painter.paint(scene, R, theme, quick ? budget : Infinity);
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
    const k = over.canvas.width / S;
    over.setTransform(k, 0, 0, k, over.canvas.width / 2, over.canvas.width / 2);
    over.clearRect(-S, -S, 2 * S, 2 * S);
    paintRim(over, scene, R, theme);
    paintLasso(over, scene, R, theme, lasso);
    if (chosen >= 0 && chosen !== hover) paintPath(over, scene, R, theme, chosen, hover < 0);
    if (hover >= 0) paintPath(over, scene, R, theme, hover, true);
    if (scene.rows.length) paintLabels(over, scene, R, theme, [...new Set([hover, chosen])].filter((i) => i >= 0 && scene.alive[i]));
  }
  const ask = (isMoving) => {
    moving = isMoving;
    queued ||= requestAnimationFrame(frame);
  };

  function fly(target, selected, level = ui.upright.checked) { // level: also undo the turn on the way
    cancelAnimationFrame(flight);
    goal = [target, selected];
    told = own(target);
    const from = V, began = performance.now(), still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const span = still ? 0 : 250 + 60 * Math.min(2 * Math.atanh(Math.min(Math.hypot(...scene.geometry.apply(V, ...target)), 0.99999)), 10);
    const { glide, turned, rotation, compose } = scene.geometry, turn = level ? turned(glide(from, target, 1)) : 0;
    const step = () => {
      const t = span ? Math.min((performance.now() - began) / span, 1) : 1, eased = t * t * (3 - 2 * t);
      V = compose(rotation(-turn * eased), glide(from, target, eased));
      ask(t < 1);
      if (t < 1) flight = requestAnimationFrame(step);
      else {
        goal = null;
        share(own(target), selected);
      }
    };
    step();
  }
  const halt = () => { // a hand on the plane ends any flight
    cancelAnimationFrame(flight);
    if (goal) told = own(middle());
    goal = null;
  };
  const position = (i) => [scene.xy[2 * i], scene.xy[2 * i + 1]];
  const middle = () => scene.geometry.centre(V), pull = (p, q) => (ui.upright.checked ? scene.geometry.dragUpright : scene.geometry.drag)(V, p, q);
  const nearest = ([x, y], within) => {
    const o = scene.place;
    let best = -1, least = within * within;
    for (const i of scene.active) {
      const d = (o[2 * i] - x) ** 2 + (o[2 * i + 1] - y) ** 2;
      if (d < least) (least = d), (best = i);
    }
    return best;
  };

  const at = (e) => {
    const b = ui.over.getBoundingClientRect();
    return [(e.clientX - b.left - b.width / 2) / (R * b.width / S), -(e.clientY - b.top - b.height / 2) / (R * b.width / S)];
  };
  const inside = (at) => { // the point of the disk under the pointer, not too near the rim to be held
    const [x, y] = scene.chart.from(...at), r = Math.hypot(x, y);
    return r > 0.98 && !scene.unit ? [(x * 0.98) / r, (y * 0.98) / r] : [x, y];
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
    if (e.shiftKey || ui.lasso?.getAttribute("aria-pressed") === "true") return void (point(-1), (lasso = [at(e)]));
    grip = { p: inside(at(e)), x: e.clientX, y: e.clientY, moved: false };
  };
  ui.over.onpointermove = (e) => {
    if (lasso) return void (e.isPrimary && (lasso.push(at(e)), paintOver()));
    if (!grip) return point(nearest(at(e), 10 / R), at(e));
    if (!e.isPrimary) return;
    if (!grip.moved && Math.hypot(e.clientX - grip.x, e.clientY - grip.y) < 4) return; // a click trembles
    if (!grip.moved) point(-1);
    const q = inside(at(e));
    V = pull(grip.p, q);
    grip = { ...grip, p: q, moved: true };
    ask(true);
  };
  ui.over.onpointerup = ui.over.onpointercancel = (e) => {
    if (lasso && e.isPrimary) return catchThem();
    if (!grip || !e.isPrimary) return;
    const moved = grip.moved, z = at(e), i = nearest(z, 12 / R);
    grip = null;
    ask(false);
    if (moved) return share(own(middle()));
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
      V = pull([0, 0], way);
      ask(true);
    } else if (e.key === "Home") fly(seen(home), chosen, true);
    else if (e.key === "/") ui.find.focus();
    else if (e.key === "Escape") (share(told, -1), caught([]));
    else if (e.key === "Enter") {
      const i = nearest([0, 0], 2);
      if (i >= 0) fly(position(i), i);
    } else return;
    e.preventDefault();
  };
  ui.over.onkeyup = (e) => e.key.startsWith("Arrow") && share(own(middle()));
  ui.find.oninput = () => ui.names.replaceChildren(...lookUp(scene, ui.find.value).map((i) => new Option(words(scene, i).gloss, words(scene, i).label)));
  ui.find.onchange = () => {
    const [i] = lookUp(scene, ui.find.value);
    if (i !== undefined) fly(position(i), i);
  };
  const caught = (ids) => {
    scene.lassoed = ids;
    model.set("lassoed", ids);
    model.save_changes();
    tell();
    paintOver();
  };
  const catchThem = () => {
    const found = lasso.length > 2 ? within(scene, lasso) : [];
    lasso = null;
    caught(found);
  };
  const pressed = (button, down) => button.setAttribute("aria-pressed", String(down));
  const set = (values) => { // a control was used: to Python, which comes back here as if it had been set there
    for (const [key, value] of Object.entries(values)) model.set(key, value);
    model.save_changes();
  };
  const showTools = () => {
    if (!ui.more) return;
    const top = model.get("subtree"), most = model.get("max_depth"), c = model.get("curvature");
    ui.chart.value = model.get("chart");
    ui.bend.value = Math.log2(c);
    ui.bent.textContent = c.toFixed(2);
    ui.deep.value = most < 0 ? ui.deepest : most;
    ui.depth.textContent = most < 0 ? "all" : most;
    pressed(ui.below, top >= 0);
    ui.below.textContent = top >= 0 ? `only below ${words(scene, top).label}` : "only below the selected";
  };
  if (ui.more) {
    ui.chart.onchange = () => set({ chart: ui.chart.value });
    ui.bend.oninput = () => set({ curvature: 2 ** ui.bend.value });
    ui.deep.oninput = () => set({ max_depth: +ui.deep.value >= ui.deepest ? -1 : +ui.deep.value });
    ui.below.onclick = () => set({ subtree: model.get("subtree") >= 0 ? -1 : chosen });
    ui.lasso.onclick = () => {
      const down = ui.lasso.getAttribute("aria-pressed") !== "true";
      pressed(ui.lasso, down);
      ui.root.classList.toggle("catching", down);
    };
    ui.svg.onclick = () => download(new Blob([toSVG(scene, R, theme, chosen)], { type: "image/svg+xml" }), "disk.svg");
    ui.png.onclick = async () => download(await toPNG(scene, R, theme, chosen), "disk.png");
  }
  ui.upright.onchange = () => {
    model.set("upright", ui.upright.checked);
    model.save_changes();
  };

  const onData = () => {
    const { rows, lower } = scene;
    scene = Object.assign(readScene(model), { rows, lower, table: readTable(model) });
    dress();
  };
  const onCurvature = () => { // what is in the middle stays there
    if (scene.unit) return;
    const { c } = scene, now = model.get("curvature"), held = dialled(middle(), now / c), turn = turned(V);
    bend(scene, now);
    V = compose(rotation(turn), translation(...held));
    showTools();
    share(own(middle()));
    ask(false);
  };
  const onSift = () => {
    sift(scene, model.get("subtree"), model.get("max_depth"));
    point(-1);
    showTools();
    tell();
    ask(false);
  };
  const onChart = () => {
    showAs(scene, model.get("chart"));
    showTools();
    ask(false);
  };
  const onLasso = () => {
    scene.lassoed = model.get("lassoed");
    tell();
    if (theme) paintOver();
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
    if (c[0] !== told[0] || c[1] !== told[1]) fly(seen(c), model.get("selected"));
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
    if (ui.upright.checked) fly(...(goal ?? [middle(), chosen]));
    tell();
  };
  let noGL = false;
  const setPainter = () => { // WebGL2 for many points, else a canvas; a canvas element keeps its first kind of context
    const asked = model.get("renderer"), wanted = noGL || asked === "canvas" || (asked === "auto" && (scene.n < MANY || !graphicsCard())) ? "canvas" : "webgl";
    if (painter?.kind === wanted) return;
    const fresh = () => {
      ui.base?.remove();
      ui.base = make("canvas", ui.stage, { "aria-hidden": "true" });
      ui.stage.prepend(ui.base);
    };
    painter?.end();
    fresh();
    painter = wanted === "webgl" ? webglPainter(ui.base, () => ((noGL = true), (painter = null), dress())) : null;
    if (painter) return;
    if (wanted === "webgl") (noGL = true), fresh();
    painter = canvasPainter(ui.base);
  };
  const dress = () => { // sizes and colours, from the page we are in
    ui.root.style.width = `${model.get("size") + 8}px`;
    S = ui.stage.clientWidth || model.get("size");
    R = S / 2 - 4;
    scene.dot = (S / 640) * (scene.n > 20000 ? 0.75 : scene.n > 2000 ? 1.15 : 1.35);
    setPainter();
    for (const canvas of [ui.base, ui.over]) canvas.width = canvas.height = Math.round(S * (window.devicePixelRatio || 1));
    const style = getComputedStyle(ui.root);
    theme = { side: S, ink: style.color, ground: style.backgroundColor, font: `12px ${style.fontFamily}` };
    fillLegend(ui.legend, scene.legend);
    ask(false);
  };

  const events = { "change:_xy": onData, "change:_text": onText, "change:center": onCentre, "change:selected": onSelected,
    "change:upright": onUpright, "change:size": dress, "change:curvature": onCurvature, "change:chart": onChart,
    "change:subtree": onSift, "change:max_depth": onSift, "change:lassoed": onLasso, "change:_near": () => tell(), "change:renderer": dress };
  const unfollow = follow(model, events, ui.stage, dress);

  chosen = model.get("selected");
  ui.upright.checked = model.get("upright");
  scene.table = readTable(model);
  showTools();
  dress();
  onText();
  ui.root.__disk = { // for tests and for the curious in the console
    stats, nearest, get view() { return V; }, get scene() { return scene; }, get hover() { return hover; }, get selected() { return chosen; },
    get centre() { return middle(); }, get painter() { return painter.kind; },
    svg: () => toSVG(scene, R, theme, chosen), png: () => toPNG(scene, R, theme, chosen),
    at: (i) => { const b = ui.over.getBoundingClientRect(), [x, y] = scene.chart.to(...scene.geometry.apply(V, ...position(i))), k = (R * b.width) / S;
      return [b.left + b.width / 2 + k * x, b.top + b.height / 2 - k * y]; },
    label: (i) => words(scene, i).label,
  };
  return () => {
    unfollow();
    cancelAnimationFrame(queued);
    cancelAnimationFrame(flight);
    clearTimeout(settle);
    painter?.end();
  };
}

export default { render };
