// k-means and EM, iteration by iteration. Parameters were computed by the run; q follows from them by Bayes' rule.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("scene-data").textContent);
  const root = document.getElementById("scene");
  const SVG = "http://www.w3.org/2000/svg", SIZE = 300, MARGIN = 14;
  // Rows, and spheres of one standard deviation around the centres of k-means.
  const values = [0, 1].map((axis) => [
    ...data.rows.map((row) => row[axis]),
    ...data.kmeans.flatMap((step) => step.loc.flatMap((loc) => [loc[axis] - 1, loc[axis] + 1])),
  ]);
  const low = values.map((v) => Math.min(...v)), high = values.map((v) => Math.max(...v));
  const scale = (SIZE - 2 * MARGIN) / Math.max(high[0] - low[0], high[1] - low[1]);
  const offset = [0, 1].map((axis) => (SIZE - scale * (low[axis] + high[axis])) / 2);
  const x = (value) => offset[0] + scale * value, y = (value) => SIZE - offset[1] - scale * value;

  const make = (name, attributes, parent) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (parent) parent.append(element);
    return element;
  };

  // log N(row; loc, covariance), without what both clusters share.
  const logDensity = (row, loc, [[a, b], [, d]]) => {
    const u = row[0] - loc[0], v = row[1] - loc[1], det = a * d - b * b;
    return -0.5 * Math.log(det) - (d * u * u - 2 * b * u * v + a * v * v) / (2 * det);
  };
  const share = (row, step, beta) => {
    const [first, second] = [0, 1].map((k) => logDensity(row, step.loc[k], step.covariance[k]));
    if (beta === null) return second > first ? 1 : 0;
    return 1 / (1 + Math.exp(beta * (first - second)));
  };

  const panel = (id, hasShapes) => {
    const svg = make("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img" });
    document.getElementById(id).prepend(svg);
    // A circle, and a triangle above it: one of them is seen.
    const marks = data.rows.map((row) => {
      const cx = x(row[0]), cy = y(row[1]);
      return [
        make("circle", { cx, cy, r: 3 }, svg),
        make("path", { d: `M${cx - 3.4} ${cy + 2.8}h6.8L${cx} ${cy - 3.6}z` }, svg),
      ];
    });
    const shapes = [0, 1].map((k) => [
      make("ellipse", { class: `outline series-${k}`, visibility: hasShapes ? "visible" : "hidden" }, svg),
      make("path", { class: `centre series-${k}` }, svg),
    ]);
    return { svg, marks, shapes };
  };

  const draw = ({ svg, marks, shapes }, step, beta, words) => {
    const shares = data.rows.map((row) => share(row, step, beta));
    shares.forEach((second, n) => {
      const isSecond = second > 0.5, fill = `color-mix(in oklab, var(--series-1) ${100 * second}%, var(--series-0))`;
      marks[n][0].style.display = isSecond ? "none" : "";
      marks[n][1].style.display = isSecond ? "" : "none";
      marks[n][isSecond ? 1 : 0].style.fill = fill;
    });
    shapes.forEach(([ellipse, centre], k) => {
      const [[a, b], [, d]] = step.covariance[k], [cx, cy] = [x(step.loc[k][0]), y(step.loc[k][1])];
      const middle = (a + d) / 2, radius = Math.hypot((a - d) / 2, b), angle = Math.atan2(2 * b, a - d) / 2;
      const axes = [middle + radius, Math.max(middle - radius, 0)].map((variance) => scale * Math.sqrt(variance));
      const turned = `rotate(${(-180 / Math.PI) * angle} ${cx} ${cy})`;
      for (const [key, value] of Object.entries({ cx, cy, rx: axes[0], ry: axes[1], transform: turned }))
        ellipse.setAttribute(key, value);
      centre.setAttribute("d", `M${cx - 7} ${cy}h14M${cx} ${cy - 7}v14`);
    });
    svg.setAttribute("aria-label", words);
    return shares;
  };

  const control = (name) => root.querySelector(`[name=${name}]`);
  const say = (name, text) => { root.querySelector(`[data-for=${name}]`).textContent = text; };
  const left = panel("scene-kmeans", false), right = panel("scene-em", true);
  let timer = null;

  const show = () => {
    const [temperature, covariance] = ["temperature", "covariance"].map((name) => +control(name).value);
    const beta = data.temperatures[temperature], path = data.em[covariance][temperature];
    // Before it is read: a shorter path brings the slider back.
    control("step").max = Math.max(data.kmeans.length, path.length) - 1;
    const number = +control("step").value;
    const [ours, theirs] = [data.kmeans, path].map((steps) => Math.min(number, steps.length - 1));
    const first = draw(left, data.kmeans[ours], null, `k-means after ${ours} iterations`);
    const second = draw(right, path[theirs], beta, `EM after ${theirs} iterations`);
    const apart = first.filter((value, n) => value > 0.5 !== second[n] > 0.5).length;
    say("step", `${number}`);
    say("temperature", beta === null ? "β = ∞: point masses" : beta === 1 ? "β = 1: the posterior" : `β = ${beta}`);
    say("covariance", data.covariances[covariance]);
    say("kmeans", `F = ${data.kmeans[ours].elbo.toFixed(1)} nats` + (number > ours ? ", at rest" : ""));
    const { loc, covariance: shape, elbo, objective } = path[theirs];
    const climbed = objective === elbo ? "" : `, and what is climbed, E[log p] + H / β, is ${objective.toFixed(1)}`;
    say("em", `F = ${elbo.toFixed(1)} nats${climbed}` + (number > theirs ? ", at rest" : ""));
    const gap = Math.hypot(loc[0][0] - loc[1][0], loc[0][1] - loc[1][1]);
    const isOne = gap < 0.01 && shape[0].flat().every((value, place) => Math.abs(value - shape[1].flat()[place]) < 0.01);
    const same = beta === null && covariance === 0 ? " With these settings EM is k-means." : "";
    say("apart", isOne
      ? "Both clusters of EM are in one place: every row is as likely in either, and no label means anything."
      : `${apart} of ${first.length} rows have another label than under k-means.${same}`);
  };

  const stop = () => { clearInterval(timer); timer = null; control("play").textContent = "Play"; };
  control("play").addEventListener("click", () => {
    if (timer) return stop();
    if (+control("step").value === +control("step").max) control("step").value = 0;
    control("play").textContent = "Pause";
    timer = setInterval(() => {
      control("step").value = +control("step").value + 1;
      show();
      if (+control("step").value === +control("step").max) stop();
    }, 700);
  });
  for (const name of ["step", "temperature", "covariance"])
    control(name).addEventListener("input", () => { if (name === "step") stop(); show(); });
  root.hidden = false;
  show();
})();
