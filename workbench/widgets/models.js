// One hyperbolic plane in its models. Pure functions: no page, no state.
// A place is either z = [x, y] in the Poincaré disk or X = [x, y, t] on the hyperboloid t² = 1 + x² + y², t > 0.

const TILT = (50 * Math.PI) / 180, UP = Math.cos(TILT), BACK = Math.sin(TILT);
const REACH = Math.tanh(3); // a hand carries points to distance 6 and no farther
const FARTHEST = Math.tanh(6); // a drag of the plane stops before a point is at distance 12: digits are left

const square = (x) => x * x;
const oneMinusSquare = ([x, y]) => { // 1 - |z|² without cancellation
  const r = Math.sqrt(x * x + y * y); // hypot is many times slower, and in the disk nothing overflows
  return (1 - r) * (1 + r);
};

/** Writes the place into `sheet`: loops over many points need no new one for each. */
function ontoSheet(z, sheet) {
  const s = oneMinusSquare(z), [x, y] = z;
  sheet[0] = (2 * x) / s;
  sheet[1] = (2 * y) / s;
  sheet[2] = (1 + x * x + y * y) / s;
  return sheet;
}

const toSheet = (z) => ontoSheet(z, [0, 0, 0]);

const toDisk = ([x, y, t]) => [x / (1 + t), y / (1 + t)];

function heldWithin([x, y], most = REACH) {
  const r = Math.hypot(x, y);
  return r > most ? [(x * most) / r, (y * most) / r] : [x, y];
}

function fromKlein([x, y]) {
  const s = 1 + Math.sqrt(oneMinusSquare([x, y]));
  return [x / s, y / s];
}

/** name: from the hyperboloid to the paper (`to`), from the paper to the disk (`from`), and the window
 *  [left, bottom, side] that a panel shows. Looking down more steeply than 45°, each ray of sight meets the sheet
 *  just once, so the hyperboloid can be grabbed as well. */
const CHARTS = {
  disk: { title: "Poincaré disk", window: [-1.06, -1.06, 2.12], to: toDisk, from: (p) => heldWithin(p) },
  klein: {
    title: "Klein disk", window: [-1.06, -1.06, 2.12],
    to: ([x, y, t]) => [x / t, y / t],
    from: (p) => heldWithin(fromKlein(heldWithin(p, 1 - 1e-9))),
  },
  "half-plane": {
    title: "half-plane", window: [-2.5, -0.3, 5],
    to: ([x, y, t]) => { // 1 / (t - y), written so that neither sign of y cancels
      const s = y > 0 ? (t + y) / (1 + x * x) : 1 / (t - y);
      return [x * s, s];
    },
    from: ([a, b]) => {
      const y = Math.max(b, 1e-6), d = a * a + square(1 + y);
      return heldWithin([(2 * a) / d, (a * a + (y - 1) * (y + 1)) / d]);
    },
  },
  hyperboloid: {
    title: "hyperboloid", window: [-4.2, -1.4, 8.4],
    to: ([x, y, t]) => [x, y * BACK + t * UP],
    from: ([a, b]) => {
      const k = square(BACK) - square(UP), y = (b * BACK - UP * Math.sqrt(b * b + k * (1 + a * a))) / k;
      return heldWithin(toDisk([a, y, Math.sqrt(1 + a * a + y * y)]));
    },
  },
  flat: { title: "flat plane", window: [-1.06, -1.06, 2.12], to: toDisk, from: (p) => heldWithin(p) },
};
