// Lines, circles and what is measured in the plane: lengths, angles, areas. Pure functions: no page, no state.

const lengthBetween = (u, v) => distance(...u, ...v);

/** Points of the geodesic from u to v, on the hyperboloid, evenly spaced: sections with a plane through its origin. */
function side(u, v, pieces = 64) {
  const U = toSheet(u), V = toSheet(v), d = lengthBetween(u, v), line = [];
  for (let k = 0; k <= pieces; k++) {
    const s = k / pieces;
    const [a, b] = d < 1e-6 ? [1 - s, s] : [Math.sinh(d * (1 - s)) / Math.sinh(d), Math.sinh(d * s) / Math.sinh(d)];
    line.push([a * U[0] + b * V[0], a * U[1] + b * V[1], a * U[2] + b * V[2]]);
  }
  return line;
}

/** Points of the hyperbolic circle, on the hyperboloid. */
function ring(z, radius, pieces = 144) {
  const back = inverse(translation(...z)), r = Math.tanh(radius / 2);
  return Array.from({ length: pieces + 1 }, (_, k) => {
    const a = (2 * Math.PI * k) / pieces;
    return toSheet(apply(back, r * Math.cos(a), r * Math.sin(a)));
  });
}

const wedge = ([a, b], [c, d]) => a * d - b * c;
const inner = ([a, b], [c, d]) => a * c + b * d;
const turnBetween = (from, to) => (Math.atan2(wedge(from, to), inner(from, to)) + 2 * Math.PI) % (2 * Math.PI);

/** Lengths of the sides, inner angles, their sum and the area. `seen(z)` says how the plane looks from a corner:
 *  a map after which rays from it are straight and angles true; `swept(p, q)` is the area of the triangle 0, p, q
 *  in what is seen. where sides cross there is no inside: angles, sum and area are null. */
function polygon(points, gap, seen, swept, defect) {
  const n = points.length, next = (k) => points[(k + 1) % n], lengths = [];
  for (let k = 0; k < (n > 2 ? n : 1); k++) lengths.push(gap(points[k], next(k)));
  if (n < 3) return { lengths, angles: null, angle_sum: null, area: null };
  const fan = points.map(seen(points[0]));
  let area = 0;
  for (let k = 1; k < n - 1; k++) area += swept(fan[k], fan[k + 1]);
  const angles = points.map((z, k) => {
    const look = seen(z), ahead = look(next(k)), behind = look(points[(k + n - 1) % n]);
    return area < 0 ? turnBetween(behind, ahead) : turnBetween(ahead, behind);
  });
  const angle_sum = angles.reduce((a, b) => a + b, 0);
  const simple = Math.abs((n - 2) * Math.PI - angle_sum - defect * Math.abs(area)) < 1e-4;
  return simple ? { lengths, angles, angle_sum, area: Math.abs(area) } : { lengths, angles: null, angle_sum: null, area: null };
}

/** What is measured in the plane of curvature -c whose disk, drawn with radius 1, shows these points. */
function measure(points, c) {
  const seen = (z) => (p) => apply(translation(...z), ...p);
  const swept = (p, q) => 2 * Math.atan2(wedge(p, q), 1 - inner(p, q)); // keeps its digits for small triangles
  const { lengths, area, ...rest } = polygon(points, lengthBetween, seen, swept, 1);
  return { ...rest, lengths: lengths.map((d) => d / Math.sqrt(c)), area: area === null ? null : area / c };
}

/** The same of the same points taken as flat, with the scale that the plane has at the centre of the disk. */
function measureFlat(points, c) {
  const s = 2 / Math.sqrt(c), gap = (u, v) => s * Math.hypot(u[0] - v[0], u[1] - v[1]);
  const seen = (z) => (p) => [s * (p[0] - z[0]), s * (p[1] - z[1])];
  return polygon(points, gap, seen, (p, q) => wedge(p, q) / 2, 0);
}
