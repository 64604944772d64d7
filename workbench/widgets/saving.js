// The picture as a file: PNG by a canvas of its own, SVG by a canvas that writes down what is painted on it.

const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
const short = (x) => +x.toFixed(2);

class SvgContext { // as much of a canvas context as the painters use
  constructor(font) {
    Object.assign(this, { parts: [], path: "", globalAlpha: 1, lineWidth: 1, dash: "", strokeStyle: "#000", fillStyle: "#000", font });
    this.ruler = document.createElement("canvas").getContext("2d");
  }
  beginPath() { this.path = ""; }
  moveTo(x, y) { this.path += `M${short(x)} ${short(y)}`; }
  lineTo(x, y) { this.path += `${this.path ? "L" : "M"}${short(x)} ${short(y)}`; }
  closePath() { this.path += "Z"; }
  rect(x, y, w, h) { this.path += `M${short(x)} ${short(y)}h${short(w)}v${short(h)}h${short(-w)}Z`; }
  arc(x, y, r, from, to, back = false) {
    const at = (t) => `${short(x + r * Math.cos(t))} ${short(y + r * Math.sin(t))}`;
    if (Math.abs(to - from) >= 2 * Math.PI) this.path += `M${at(0)}A${short(r)} ${short(r)} 0 1 1 ${at(Math.PI)}A${short(r)} ${short(r)} 0 1 1 ${at(0)}`;
    else this.path += `${this.path ? "L" : "M"}${at(from)}A${short(r)} ${short(r)} 0 0 ${back ? 0 : 1} ${at(to)}`; // geodesics: never half a turn
  }
  stroke() { this.put(`fill="none" stroke="${this.strokeStyle}" stroke-width="${this.lineWidth}"${this.dash}`); }
  fill() { this.put(`fill="${this.fillStyle}"`); }
  put(look) { if (this.path) this.parts.push(`<path d="${this.path}" ${look}${this.globalAlpha < 1 ? ` opacity="${short(this.globalAlpha)}"` : ""}/>`); }
  fillRect(x, y, w, h) { (this.beginPath(), this.rect(x, y, w, h), this.fill()); }
  setLineDash(dash) { this.dash = dash.length ? ` stroke-dasharray="${dash}"` : ""; }
  measureText(text) { this.ruler.font = this.font; return this.ruler.measureText(text); }
  strokeText(text, x, y) { this.write(text, x, y, `stroke="${this.strokeStyle}" stroke-width="${this.lineWidth}" stroke-linejoin="round"`); }
  fillText(text, x, y) { this.write(text, x, y, `fill="${this.fillStyle}"`); }
  write(text, x, y, look) { this.parts.push(`<text x="${short(x)}" y="${short(y)}" dominant-baseline="central" style="font: ${escaped(this.font)}" ${look}>${escaped(text)}</text>`); }
}

function paintAll(ctx, scene, R, theme, selected) {
  paintTree(ctx, scene, R, Infinity);
  paintRim(ctx, scene, R, theme);
  if (selected >= 0) paintPath(ctx, scene, R, theme, selected, true);
  paintLasso(ctx, scene, R, theme);
  if (scene.rows.length) paintLabels(ctx, scene, R, theme, selected >= 0 ? [selected] : []);
}

/** The picture as a string of SVG. */
function toSVG(scene, R, theme, selected) {
  const ctx = new SvgContext(theme.font), side = short(theme.side), half = short(theme.side / 2);
  paintAll(ctx, scene, R, theme, selected);
  const clip = scene.unit ? `<circle r="${short(R)}"/>` : `<rect x="${-half}" y="${-half}" width="${side}" height="${side}"/>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${side}" height="${side}" viewBox="${-half} ${-half} ${side} ${side}">` +
    `<rect x="${-half}" y="${-half}" width="${side}" height="${side}" fill="${theme.ground}"/><clipPath id="panel">${clip}</clipPath>` +
    `<g clip-path="url(#panel)">${ctx.parts.join("\n")}</g></svg>`;
}

/** The picture as a PNG of `scale` times its size on the page, a promise of a Blob. */
function toPNG(scene, R, theme, selected, scale = 2) {
  const canvas = document.createElement("canvas"), ctx = canvas.getContext("2d");
  canvas.width = canvas.height = Math.round(scale * theme.side);
  ctx.fillStyle = theme.ground;
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  ctx.setTransform(scale, 0, 0, scale, canvas.width / 2, canvas.width / 2);
  if (scene.unit) (ctx.beginPath(), ctx.arc(0, 0, R, 0, 7), ctx.clip());
  paintAll(ctx, scene, R, theme, selected);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
