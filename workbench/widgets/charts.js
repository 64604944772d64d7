// What DiskView moves and shows: a panel carries the unit disk to its square, from -1 to 1, and back; a geometry is what
// moves under the hand, the hyperbolic plane (isometry.js), or the flat one for comparison.

const AS_IT_IS = { name: "disk", title: CHARTS.disk.title, round: true, window: [-1, -1, 2], to: (x, y) => [x, y], from: (x, y) => [x, y] };

function panelOf(name, how = {}) {
  const { title, window: paper, to, from } = CHARTS[name], [left, bottom, side] = how.round ? [-1, -1, 2] : paper, s = 2 / side;
  return { name, title, window: [left, bottom, side], ...how,
    to: (x, y) => { const [a, b] = to(toSheet([x, y])); return [s * (a - left) - 1, s * (b - bottom) - 1]; },
    toAll: (out, place) => { // in every frame
      const z = [0, 0], sheet = [0, 0, 0];
      for (let k = 0; k < out.length; k += 2) {
        (z[0] = out[k]), (z[1] = out[k + 1]);
        const p = to(ontoSheet(z, sheet));
        place[k] = s * (p[0] - left) - 1;
        place[k + 1] = s * (p[1] - bottom) - 1;
      }
    },
    from: (x, y) => from([left + (x + 1) / s, bottom + (y + 1) / s]) };
}

/** By name; the shader knows them by their place in this list. */
const PANELS = { disk: AS_IT_IS, klein: panelOf("klein", { round: true, straight: true }), "half-plane": panelOf("half-plane"), hyperboloid: panelOf("hyperboloid") };
const FLAT_PANEL = { ...AS_IT_IS, straight: true };

/** The same polar coordinates (direction, distance from the origin) in the plane of curvature -c, as unit disk. */
function dialled(xy, c, out = new Float64Array(xy.length)) {
  const k = Math.sqrt(c);
  for (let i = 0; i < xy.length; i += 2) {
    const r = Math.hypot(xy[i], xy[i + 1]), s = r > 0 ? Math.min(Math.tanh(k * Math.atanh(r)), 1 - 1e-16) / r : 1;
    out[i] = s * xy[i];
    out[i + 1] = s * xy[i + 1];
  }
  return out;
}

const HYPERBOLIC = { translation, inverse, apply, project, centre, drag, dragUpright, glide, turned, rotation, compose, distance };

/** The flat plane, drawn at a scale: a view is [scale, 0, x, y], data z goes to scale z + (x, y). Nothing turns. */
function flat(scale) {
  const back = ([s, , x, y], u, v) => [(u - x) / s, (v - y) / s];
  const pull = ([s, , x, y], p, q) => [s, 0, x + q[0] - p[0], y + q[1] - p[1]];
  return {
    translation: (x, y) => [scale, 0, -scale * x, -scale * y],
    inverse: (V) => [1 / V[0], 0, -V[2] / V[0], -V[3] / V[0]],
    apply: ([s, , x, y], u, v) => [s * u + x, s * v + y],
    project: ([s, , x, y], xy, out) => {
      for (let k = 0; k < xy.length; k += 2) (out[k] = s * xy[k] + x), (out[k + 1] = s * xy[k + 1] + y);
    },
    centre: (V) => back(V, 0, 0),
    drag: pull,
    dragUpright: pull,
    glide: (V, target, t) => { const [x, y] = [V[0] * target[0] + V[2], V[0] * target[1] + V[3]]; return pull(V, [t * x, t * y], [0, 0]); },
    turned: () => 0,
    rotation: () => null,
    compose: (f, g) => g, // only ever asked to undo a turn, and there is none
    distance: (ux, uy, vx, vy) => Math.hypot(ux - vx, uy - vy),
  };
}
