// Pictures of one plane. A chart carries the unit disk to the panel, the square from -1 to 1, and back; a geometry is
// what moves under the hand: the hyperbolic plane (isometry.js), or the flat one for comparison.

const TILT = [Math.cos(0.6), Math.sin(0.6)], SHEET = 0.3, SHEET_LOW = -0.55; // the hyperboloid seen from above its rim
const PLANE_UNIT = 0.42; // of the half-plane: where i lies above its border at the bottom

const halfPlane = (x, y) => { // i (1 - i w) / (1 + i w): the top of the disk is at infinity
  const dr = 1 - y, di = x, d = dr * dr + di * di, nr = 1 + y, ni = -x;
  const qr = (nr * dr + ni * di) / d, qi = (ni * dr - nr * di) / d;
  return [-qi, qr];
};

export const CHARTS = {
  disk: { title: "Poincaré disk", round: true, to: (x, y) => [x, y], from: (x, y) => [x, y] },
  klein: {
    title: "Klein disk", round: true, straight: true,
    to: (x, y) => { const s = 2 / (1 + x * x + y * y); return [s * x, s * y]; },
    from: (x, y) => { const r2 = Math.min(x * x + y * y, 0.999999), s = 1 / (1 + Math.sqrt(1 - r2)); return [s * x, s * y]; },
  },
  "half-plane": {
    title: "half-plane",
    to: (x, y) => { const [a, b] = halfPlane(x, y); return [PLANE_UNIT * a, PLANE_UNIT * b - 0.9]; },
    from: (x, y) => { // w = -i (z - i) / (z + i) turned back: the inverse of the above
      const a = x / PLANE_UNIT, b = Math.max((y + 0.9) / PLANE_UNIT, 1e-6), d = a * a + (b + 1) * (b + 1);
      const re = (a * a + b * b - 1) / d, im = (-2 * a) / d;
      return [-im, re];
    },
  },
  hyperboloid: {
    title: "hyperboloid",
    to: (x, y) => {
      const s = 1 / (1 - x * x - y * y), t = (1 + x * x + y * y) * s;
      return [SHEET * 2 * x * s, SHEET * (TILT[0] * 2 * y * s + TILT[1] * (t - 1)) + SHEET_LOW];
    },
    from: (px, py) => { // cos y + sin t = h with t² = 1 + x² + y²: a quadratic equation
      const x = px / SHEET, [c, d] = TILT, h = (py - SHEET_LOW) / SHEET + d, k = c * c - d * d;
      const root = Math.sqrt(Math.max(c * c * h * h - k * (h * h - d * d * (1 + x * x)), 0)), y = (c * h - root) / k;
      const s = 1 / (1 + Math.sqrt(1 + x * x + y * y));
      return [s * x, s * y];
    },
  },
};

/** Hyperbolic distance (c = 1), right for near points and near the rim. */
export function distance(ux, uy, vx, vy) {
  const gap = (r) => (1 - r) * (1 + r);
  return 2 * Math.asinh(Math.hypot(ux - vx, uy - vy) / Math.sqrt(gap(Math.hypot(ux, uy)) * gap(Math.hypot(vx, vy))));
}

/** The same polar coordinates (direction, distance from the origin) in the plane of curvature -c, as unit disk. */
export function dialled(xy, c, out = new Float64Array(xy.length)) {
  const k = Math.sqrt(c);
  for (let i = 0; i < xy.length; i += 2) {
    const r = Math.hypot(xy[i], xy[i + 1]), s = r > 0 ? Math.min(Math.tanh(k * Math.atanh(r)), 1 - 1e-16) / r : 1;
    out[i] = s * xy[i];
    out[i + 1] = s * xy[i + 1];
  }
  return out;
}

export const HYPERBOLIC = { translation, inverse, apply, project, centre, drag, dragUpright, glide, turned, rotation, compose, distance };

/** The flat plane, drawn at a scale: a view is [scale, 0, x, y], data z goes to scale z + (x, y). Nothing turns. */
export function flat(scale) {
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
