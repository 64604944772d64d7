// Pictures by WebGL2: the same scene, all of it, in every frame. The Möbius map is done in doubles before (scene.js);
// the shader bends edges into geodesics and knows the charts.

const GL_STEPS = 16; // pieces of a curved edge

const GL_CHART = `#version 300 es
precision highp float;
uniform int chart; uniform float scale; uniform vec3 window; uniform vec3 palette[64];
vec2 onPaper(vec2 z) { // models.js, from the disk
  float r2 = dot(z, z), inside = max(1.0 - r2, 1e-7);
  if (chart == 1) return 2.0 * z / (1.0 + r2);
  if (chart == 2) return vec2(2.0 * z.x, inside) / ((1.0 - z.y) * (1.0 - z.y) + z.x * z.x);
  if (chart == 3) return vec2(2.0 * z.x, 2.0 * z.y * ${BACK} + (1.0 + r2) * ${UP}) / inside;
  return z;
}
vec2 onPanel(vec2 z) { return 2.0 * (onPaper(z) - window.xy) / window.z - 1.0; }
`;

const EDGE_SHADER = `${GL_CHART}
in vec4 ends; in float colour; in float t; out vec3 ink; out vec2 disk;
uniform int bent;
void main() {
  vec2 u = ends.xy, v = ends.zw, w = mix(u, v, t);
  if (bent == 1) { // a geodesic is a chord of the Klein disk; closer steps where the rim bends it most
    vec2 a = 2.0 * u / (1.0 + dot(u, u)), b = 2.0 * v / (1.0 + dot(v, v)), k = mix(a, b, 0.5 - 0.5 * cos(3.14159265 * t));
    w = k / (1.0 + sqrt(max(1.0 - dot(k, k), 0.0)));
  }
  disk = w;
  ink = palette[int(colour)];
  gl_Position = vec4(onPanel(w) * scale, 0.0, 1.0);
}`;

const POINT_SHADER = `${GL_CHART}
in vec2 place; in float colour; in float size; out vec3 ink; out float across; out vec2 disk;
void main() {
  disk = place;
  across = size;
  ink = palette[int(colour)];
  gl_Position = vec4(onPanel(place) * scale, 0.0, 1.0);
  gl_PointSize = size + 1.0;
}`;

const EDGE_INK = `#version 300 es
precision highp float;
in vec3 ink; in vec2 disk; out vec4 color; uniform float alpha; uniform int clipped;
void main() {
  if (clipped == 1 && dot(disk, disk) > 1.0) discard;
  color = vec4(ink * alpha, alpha);
}`;

const POINT_INK = `#version 300 es
precision highp float;
in vec3 ink; in float across; out vec4 color;
void main() { // a round spot with a soft edge of one pixel
  float a = clamp(0.5 * across + 0.5 - length(gl_PointCoord - 0.5) * (across + 1.0), 0.0, 1.0);
  if (a == 0.0) discard;
  color = vec4(ink * a, a);
}`;

function glProgram(gl, vertex, fragment) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program) || "shader");
  const of = (name) => gl.getAttribLocation(program, name), at = (name) => gl.getUniformLocation(program, name);
  return { program, of, at };
}

let cardKnown = null;

/** Whether a graphics card is behind WebGL2. Where a processor plays its part, a canvas is twice as fast. */
function graphicsCard() {
  if (cardKnown !== null) return cardKnown;
  const gl = document.createElement("canvas").getContext("webgl2"), told = gl?.getExtension("WEBGL_debug_renderer_info");
  const name = gl ? gl.getParameter(told ? told.UNMASKED_RENDERER_WEBGL : gl.RENDERER) : "";
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return (cardKnown = Boolean(gl) && !/swiftshader|llvmpipe|softpipe|software|basic render/i.test(name));
}

/** The painter by WebGL2; null where there is none. Calls `lost` if the browser takes it away later. */
function webglPainter(canvas, lost) {
  const gl = canvas.getContext("webgl2", { antialias: true, premultipliedAlpha: true });
  if (!gl) return null;
  let edge, point;
  try {
    edge = glProgram(gl, EDGE_SHADER, EDGE_INK);
    point = glProgram(gl, POINT_SHADER, POINT_INK);
  } catch (e) {
    console.warn(`WebGL2 is here but cannot draw this view, a canvas does instead: ${e.message}`);
    return null; // the canvas has its context now: the caller takes another one
  }
  const data = gl.createBuffer(), along = gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, along);
  gl.bufferData(gl.ARRAY_BUFFER, Float32Array.from({ length: GL_STEPS + 1 }, (_, k) => k / GL_STEPS), gl.STATIC_DRAW);
  canvas.addEventListener("webglcontextlost", lost);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);

  const attribute = (where, size, stride, offset, divisor) => {
    gl.enableVertexAttribArray(where);
    gl.vertexAttribPointer(where, size, gl.FLOAT, false, 4 * stride, 4 * offset);
    gl.vertexAttribDivisor(where, divisor);
  };
  const use = (program, scene, R, theme) => {
    gl.useProgram(program.program);
    gl.uniform1i(program.at("chart"), Object.keys(PANELS).indexOf(scene.chart.name));
    gl.uniform3fv(program.at("window"), scene.chart.window);
    gl.uniform1f(program.at("scale"), (2 * R) / theme.side);
    gl.uniform3fv(program.at("palette"), scene.legend.colours.flatMap((c) => [1, 3, 5].map((k) => parseInt(c.slice(k, k + 2), 16) / 255)));
  };
  const upload = (values) => {
    gl.bindBuffer(gl.ARRAY_BUFFER, data);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STREAM_DRAW);
  };

  /** Edges that look straight as two vertices each, the others bent by the shader. */
  function paintEdges(scene, R, theme, edges, alpha) {
    const o = scene.out, lines = { straight: [], bent: [] };
    for (const e of edges) {
      const i = 2 * e[0], j = 2 * e[1], length = R * Math.hypot(o[i] - o[j], o[i + 1] - o[j + 1]);
      const circle = scene.chart.straight || length < 6 ? null : scene.chart.name === "disk" ? arc(o[i], o[i + 1], o[j], o[j + 1]) : [0, 0, 0];
      (!circle || (length * length) / (8 * R * circle[2]) < 0.3 ? lines.straight : lines.bent).push(o[i], o[i + 1], o[j], o[j + 1], scene.colour[e[1]]);
    }
    use(edge, scene, R, theme);
    gl.uniform1f(edge.at("alpha"), alpha * Math.min(1, Math.sqrt(1000 / edges.length))); // many edges, faint edges
    gl.uniform1i(edge.at("clipped"), scene.unit ? 1 : 0);
    for (const [kind, values] of Object.entries(lines)) {
      if (!values.length) continue;
      const bent = kind === "bent";
      gl.uniform1i(edge.at("bent"), bent ? 1 : 0);
      gl.bindBuffer(gl.ARRAY_BUFFER, along);
      attribute(edge.of("t"), 1, bent ? 1 : GL_STEPS, 0, 0); // straight: only 0 and 1 of the steps
      upload(new Float32Array(values));
      attribute(edge.of("ends"), 4, 5, 0, 1);
      attribute(edge.of("colour"), 1, 5, 4, 1);
      gl.drawArraysInstanced(gl.LINE_STRIP, 0, bent ? GL_STEPS + 1 : 2, values.length / 5);
    }
  }

  function paintPoints(scene, R, theme) {
    const o = scene.out, values = new Float32Array(4 * scene.visible.length), k = canvas.width / theme.side;
    let at = values.length;
    for (const i of scene.visible) { // heavier points come first here and are drawn last
      const x = o[2 * i], y = o[2 * i + 1];
      at -= 4;
      values[at] = x, values[at + 1] = y, values[at + 2] = scene.colour[i];
      values[at + 3] = 2 * k * radius(scene, i, x * x + y * y);
    }
    use(point, scene, R, theme);
    upload(values);
    attribute(point.of("place"), 2, 4, 0, 0);
    attribute(point.of("colour"), 1, 4, 2, 0);
    attribute(point.of("size"), 1, 4, 3, 0);
    gl.drawArrays(gl.POINTS, 0, scene.visible.length);
  }

  return {
    kind: "webgl",
    paint(scene, R, theme, budget) {
      const quick = budget < Infinity;
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      if (!quick) paintEdges(scene, R, theme, visibleEdges(scene, R, scene.cross, Infinity, 2), 0.15);
      paintEdges(scene, R, theme, visibleEdges(scene, R, scene.tree, budget, quick ? 2 : 1), 0.7);
      thin(scene, R, quick ? 1 : 0.5, 3 * budget);
      paintPoints(scene, R, theme);
    },
    end() { // browsers keep 8 to 16 contexts a page: give this one back
      canvas.removeEventListener("webglcontextlost", lost);
      gl.getExtension("WEBGL_lose_context")?.loseContext();
    },
  };
}
