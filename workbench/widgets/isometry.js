// Isometries of the Poincaré disk in doubles. Pure functions: no page, no state.
// An element of SU(1,1) is [ar, ai, br, bi]: the map z -> (a z + b) / (conj(b) z + conj(a)), |a|² - |b|² = 1.
// The view V carries data coordinates to the screen's unit disk.

export const IDENTITY = [1, 0, 0, 0];
const FAR = 1e7; // |a| at hyperbolic distance 33.6 from the origin: doubles cannot tell points apart beyond it

/** The isometry that carries (x, y) to the centre without turning. */
export function translation(x, y) {
  const r = Math.hypot(x, y), s = 1 / Math.sqrt((1 - r) * (1 + r));
  return [s, 0, -x * s, -y * s];
}

/** f after g, renormalised: rounding would otherwise let |a|² - |b|² drift over thousands of steps. */
export function compose([ar, ai, br, bi], [cr, ci, dr, di]) {
  const a = [ar * cr - ai * ci + br * dr + bi * di, ar * ci + ai * cr + bi * dr - br * di];
  const b = [ar * dr - ai * di + br * cr + bi * ci, ar * di + ai * dr + bi * cr - br * ci];
  const ra = Math.hypot(...a), rb = Math.hypot(...b), det = (ra - rb) * (ra + rb);
  const s = det > 0.5 ? 1 / Math.sqrt(det) : 1; // scaling does not change the map; noise must not blow it up
  return [a[0] * s, a[1] * s, b[0] * s, b[1] * s];
}

export const inverse = ([ar, ai, br, bi]) => [ar, -ai, -br, -bi];

export function apply([ar, ai, br, bi], x, y) {
  const nr = ar * x - ai * y + br, ni = ar * y + ai * x + bi;
  const dr = br * x + bi * y + ar, di = br * y - bi * x - ai, d = dr * dr + di * di;
  return [(nr * dr + ni * di) / d, (ni * dr - nr * di) / d];
}

/** `apply` for all points at once; xy and out are interleaved, the inner loop of every frame. */
export function project([ar, ai, br, bi], xy, out) {
  for (let k = 0; k < xy.length; k += 2) {
    const x = xy[k], y = xy[k + 1];
    const nr = ar * x - ai * y + br, ni = ar * y + ai * x + bi;
    const dr = br * x + bi * y + ar, di = br * y - bi * x - ai, d = dr * dr + di * di;
    out[k] = (nr * dr + ni * di) / d;
    out[k + 1] = (ni * dr - nr * di) / d;
  }
}

/** The data point shown at the centre: V⁻¹(0) = -b / a. */
export function centre([ar, ai, br, bi]) {
  const d = ar * ar + ai * ai;
  return [-(br * ar + bi * ai) / d, -(bi * ar - br * ai) / d];
}

/** What is shown at p goes to q, and its surroundings keep their direction on the screen (the derivative at p is
 *  positive). Grabbing here, then there, still turns the plane as a whole: that is its holonomy. */
export function drag(V, p, q) {
  const next = compose(compose(translation(-q[0], -q[1]), translation(...p)), V);
  return Math.hypot(next[0], next[1]) < FAR ? next : V;
}

/** The same, with a view that never turns: the c with (z - c) / (1 - conj(c) z) = q, where z is the data point at p.
 *  With k = q z the equation is linear, c - k conj(c) = z - q. */
export function dragUpright(V, p, q) {
  const [x, y] = apply(inverse(V), ...p), dx = x - q[0], dy = y - q[1];
  const kr = q[0] * x - q[1] * y, ki = q[0] * y + q[1] * x, s = 1 - kr * kr - ki * ki;
  const next = translation((dx + kr * dx + ki * dy) / s, (dy + ki * dx - kr * dy) / s);
  return next[0] < FAR ? next : V; // false for NaN too
}

/** The view on the way to `target` (data coordinates): fraction t of the geodesic from the present centre, carried
 *  along it without turning. Around a closed loop of glides the plane turns by the area enclosed (Gauss-Bonnet). */
export function glide(V, target, t) {
  const [x, y] = apply(V, ...target), r = Math.hypot(x, y);
  if (r < 1e-15) return V;
  const s = Math.tanh(t * Math.atanh(Math.min(r, 1 - 1e-16))) / r;
  return compose(translation(x * s, y * s), V);
}

/** The turn of a view, as the half-angle in (-π/2, π/2]: V is this rotation after a pure translation. */
export const turned = ([ar, ai]) => (ar < 0 ? Math.atan2(-ai, -ar) : Math.atan2(ai, ar));

export const rotation = (half) => [Math.cos(half), Math.sin(half), 0, 0];

/** Hyperbolic distance (c = 1), right for near points and near the rim. */
export function distance(ux, uy, vx, vy) {
  const gap = (r) => (1 - r) * (1 + r);
  return 2 * Math.asinh(Math.hypot(ux - vx, uy - vy) / Math.sqrt(gap(Math.hypot(ux, uy)) * gap(Math.hypot(vx, vy))));
}

/** Circle through u and v at right angles to the unit circle, [cx, cy, r]; null where the geodesic is (nearly) straight. */
export function arc(ux, uy, vx, vy) {
  const det = 2 * (ux * vy - uy * vx);
  if (Math.abs(det) < 1e-9) return null;
  const su = 1 + ux * ux + uy * uy, sv = 1 + vx * vx + vy * vy;
  const cx = (su * vy - sv * uy) / det, cy = (sv * ux - su * vx) / det;
  return [cx, cy, Math.sqrt(Math.max(cx * cx + cy * cy - 1, 0))];
}
