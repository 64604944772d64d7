"""What the pages and slides of lessons look like: style, script, frames. Nothing here comes from a network."""

from __future__ import annotations

from functools import cache
from string import Template

COLOURS = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6570; --paper: #fff; --card: #f6f7f9; --line: #d9dde2;
  --accent: #0060a0; --predict: #fff6df; --ask: #e4f3ee; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #9aa4af; --paper: #14171a; --card: #1d2126; --line: #343a41;
    --accent: #7cc4f2; --predict: #342c17; --ask: #15302a; }
}
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--paper); font: 17px/1.6 system-ui, "DejaVu Sans", sans-serif; }
a { color: var(--accent); }
math { font-family: "Latin Modern Math", "STIX Two Math", "Cambria Math", "DejaVu Math TeX Gyre", math; }
math[display="block"] { display: block math; margin: 1rem 0; overflow-x: auto; overflow-y: hidden; }
figure { margin: 1.25rem 0; } figcaption { color: var(--soft); font-size: .875em; }
.plot { overflow: hidden; border-radius: 6px; background: #fff; }
.plot > div { transform-origin: 0 0; color: #222; }
"""

PAGE_STYLE = """
main, body > nav, footer { max-width: 54rem; margin: 0 auto; padding: 0 1.25rem; }
body > nav { padding-top: 1rem; display: flex; gap: 1.25rem; flex-wrap: wrap; font-size: .9rem; }
footer { padding: 2rem 1.25rem 4rem; color: var(--soft); font-size: .875rem; }
h1 { line-height: 1.25; } h2 { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1.25rem; }
pre { overflow-x: auto; padding: .75rem 1rem; background: var(--card); border-radius: 6px; line-height: 1.45;
  font: .82rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
pre.said { background: none; border-left: 3px solid var(--line); border-radius: 0; color: var(--soft); }
.highlight, .highlight pre { background: var(--card); }
:not(pre) > code { background: var(--card); padding: .1em .3em; border-radius: 4px; font-size: .88em; }
blockquote { margin: 1.25rem 0; padding: .25rem 1.1rem; border-left: 4px solid #e69f00; background: var(--predict);
  border-radius: 0 6px 6px 0; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; }
th, td { border-bottom: 1px solid var(--line); }
thead th:empty { padding: 0; }
details { margin: .5rem 0; padding: .4rem 1rem; border: 1px solid var(--line); border-radius: 6px; }
summary { cursor: pointer; font-weight: 600; }
.exercise { background: var(--ask); border-radius: 10px; padding: .5rem 1.25rem 1rem; margin: 1.5rem 0; }
.exercise details { background: var(--paper); }
@media print { body > nav { display: none; } .highlight pre { white-space: pre-wrap; } }
"""

SLIDE_STYLE = """
html { scroll-snap-type: y mandatory; }
body { font-size: clamp(17px, 1.3vw + 2.1vh, 60px); line-height: 1.4; }
section { height: 100vh; height: 100dvh; padding: 1.1em 1.6em 1.7em; position: relative; scroll-snap-align: start;
  scroll-snap-stop: always; display: flex; flex-direction: column; justify-content: center; overflow: hidden; }
section > small { position: absolute; bottom: .6em; right: 1.6em; color: var(--soft); font-size: .55em; }
section > .of { color: var(--soft); font-size: .65em; margin: 0 0 .6em; }
section.shown { justify-content: flex-start; }
section.shown figure { flex: 1; min-height: 0; margin: 0; display: flex; flex-direction: column; gap: .35em; }
section.shown .plot { flex: 1; min-height: 0; }
section.shown figcaption { font-size: .5em; }
section.shown .verdict { font-size: .62em; font-weight: 600; margin: 0; max-width: none; }
section.predict { background: var(--predict); } section.ask { background: var(--ask); }
section.predict blockquote { margin: 0; } blockquote { margin: 0; }
h1 { font-size: 2em; line-height: 1.15; margin: 0 0 .5em; }
h2 { font-size: 1.6em; line-height: 1.2; margin: 0 0 .5em; }
p { margin: .45em 0; max-width: 52em; } li { margin: .3em 0; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .88em; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .2em .8em .2em 0; vertical-align: top; }
@media (max-width: 40rem), (max-height: 24rem) {
  html { scroll-snap-type: none; } section { height: auto; min-height: 100vh; min-height: 100dvh; }
  section.shown .plot { flex: none; }
}
@media print { section { break-after: page; } }
"""

# Figures are drawn when they come near, at the size they were made for, and scaled to the room there is.
FIGURES = """
const holders = [...document.querySelectorAll(".plot")];
const bounded = document.body.classList.contains("slides");
function fit(holder) {
  const { width, height } = holder.dataset, box = holder.firstElementChild;
  const free = !bounded || getComputedStyle(holder).flexGrow === "0";
  const across = holder.clientWidth / width;
  const scale = free ? Math.min(1, across) : Math.min(across, holder.clientHeight / height);
  if (free) holder.style.height = `${height * scale}px`; else holder.style.removeProperty("height");
  const x = bounded ? (holder.clientWidth - width * scale) / 2 : 0;
  const y = free ? 0 : (holder.clientHeight - height * scale) / 2;
  box.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
}
function draw(holder) {
  if (holder.dataset.drawn) return;
  holder.dataset.drawn = "yes";
  const box = holder.firstElementChild, { data, layout } = JSON.parse(holder.lastElementChild.textContent);
  if (!window.Plotly) { box.textContent = "The figure needs plotly.min.js in the folder above this page."; return; }
  const { width, height } = holder.dataset;
  box.style.transform = "none"; // tables measure themselves
  Plotly.newPlot(box, data, { ...layout, width: +width, height: +height }, { displaylogo: false })
    .then(() => fit(holder));
}
const near = new IntersectionObserver((found) => found.forEach((f) => f.isIntersecting && draw(f.target)),
  { rootMargin: "600px" });
holders.forEach((holder) => { fit(holder); near.observe(holder); });
addEventListener("resize", () => holders.forEach(fit));
addEventListener("beforeprint", () => holders.forEach(draw));
"""

SLIDES = """
const slides = [...document.querySelectorAll("section")];
for (const formula of document.querySelectorAll("math[display=block]"))
  for (let size = 1; formula.scrollWidth > formula.clientWidth && size > 0.45; size -= 0.05)
    formula.style.fontSize = `${size}em`;
for (const slide of slides) // a slide that says too much is set smaller
  for (let size = 1; slide.scrollHeight > slide.clientHeight + 1 && size > 0.45; size -= 0.05)
    slide.style.fontSize = `${size}em`;
const here = () => slides.findIndex((s) => s.getBoundingClientRect().bottom > innerHeight / 2);
function go(to) {
  const target = slides[Math.max(0, Math.min(slides.length - 1, to))];
  target.scrollIntoView({ behavior: "instant" });
  history.replaceState(null, "", `#${target.id}`);
}
const steps = { ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1 };
addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  if (e.key in steps) go(here() + (e.shiftKey && e.key === " " ? -1 : steps[e.key]));
  else if (e.key === "Home") go(0);
  else if (e.key === "End") go(slides.length - 1);
  else return;
  e.preventDefault();
});
"""

FRAME = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>$title</title>
<style>$style</style>
$plotly
</head>
<body class="$kind">
$body
<script type="module">$script</script>
</body>
</html>
""")


@cache
def _code_style() -> str:
    """Colours of Python, for light and for dark paper."""
    from pygments.formatters import HtmlFormatter

    light, dark = (HtmlFormatter(style=s).get_style_defs(".highlight") for s in ("default", "native"))
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n"


def page(title: str, body: str) -> str:
    """A page to read. title, body: HTML."""
    return _frame("page", title, body, COLOURS + _code_style() + PAGE_STYLE, FIGURES)


def deck(title: str, sections: list[str]) -> str:
    """Slides, one a screen. title and sections: HTML."""
    return _frame("slides", title, "\n".join(sections), COLOURS + SLIDE_STYLE, SLIDES + FIGURES)


def _frame(kind: str, title: str, body: str, style: str, script: str) -> str:
    shown = 'class="plot"' in body
    plotly = '<script src="../plotly.min.js" defer></script>' if shown else ""
    return FRAME.substitute(
        kind=kind,
        title=title,
        body=body,
        style=style,
        plotly=plotly,
        script=script if shown or kind == "slides" else "",
    )
