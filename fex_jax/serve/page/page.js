// The page of `fex-jax serve`: no library, and nothing from elsewhere.
"use strict";

const $ = (id) => document.getElementById(id);
const percent = (value) => model.output === "value" ? value.toFixed(3)
  : value > 0 && value < 0.01 ? "<\u00a01\u00a0%" : `${Math.round(100 * value)}\u00a0%`;
const LISTED = 10;  // classes, until one is searched for

let model;          // what /model says
let thing = null;   // {sent, picture or text, probabilities, maps: by target}
let panels = [];    // {target, removed, curve, element}
let active = 0;
let turn = 0;       // of the latest thing: answers about others are dropped

async function ask(path, body) {
  const response = await fetch(path, {
    method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

const images = () => model.modality === "images";
const plural = () => images() ? "images" : "texts";

async function begin(sent) {
  const mine = ++turn, start = performance.now();
  document.body.dataset.state = "waiting";
  try {
    const count = Math.min(4, model.labels.length);
    const answer = await ask("/explain", {[plural()]: [sent], top_k: count, show: true});
    if (mine !== turn) return;
    const [found] = answer.explanations;
    thing = {...found, sent, maps: {}};
    keep(found);
    if (images()) {
      thing.sent = found.picture;  // what the classifier sees is small, and stays the same
      thing.image = await load(found.picture);
    }
    const [first, second] = found.classes.map((one) => one.target);
    panels = [first, ...($("compare").checked ? [second ?? first] : [])].map(panelOf);
    active = 0;
    $("problem").textContent = "";
    $("result").hidden = false;
    showPanels();
    done(start);
  } catch (error) {
    if (mine === turn) fail(error);
  }
}

function keep(found) {
  for (const one of found.classes) thing.maps[one.target] = one;
}

const panelOf = (target) => ({target, removed: 0, curve: null});

async function choose(target) {
  const mine = turn, start = performance.now();
  const panel = panels[active] = {...panelOf(target), removed: panels[active].removed};
  showPanels();
  try {
    if (!thing.maps[target]) {
      document.body.dataset.state = "waiting";
      const body = {[plural()]: [thing.sent], targets: [target], shown: true};
      const answer = await ask("/explain", body);
      if (mine !== turn) return;
      keep(answer.explanations[0]);
    }
    if (panels.includes(panel)) draw(panel);
    done(start);
    if (panel.removed) goOn(panel);
  } catch (error) { fail(error); }
}

async function goOn(panel) {
  if (panel.curve || panel.asked) return;
  panel.asked = true;
  const one = plural().slice(0, -1);
  try {
    const body = {[one]: thing.sent, target: panel.target, shown: true};
    panel.curve = (await ask("/removal", body)).probabilities.map((row) => row[0]);
    if (panels.includes(panel)) draw(panel);
  } catch (error) { fail(error); }
}

function done(start) {
  const took = performance.now() - start;
  $("took").textContent = `map in ${Math.round(took)} ms`;
  document.body.dataset.took = took;
  document.body.dataset.state = "done";
}

function fail(error) {
  $("problem").textContent = error.message;
  document.body.dataset.state = "failed";
}

const load = (source) => new Promise((resolve, reject) => {
  const image = new Image();
  image.onload = () => resolve(image);
  image.onerror = () => reject(new Error("the picture cannot be shown"));
  image.src = source;
});

// --- Classes -----------------------------------------------------------------------------------

function showClasses() {
  const wanted = $("search").value.trim().toLowerCase();
  const ranking = model.labels.map((label, target) => ({label, target}))
    .filter(({label}) => label.toLowerCase().includes(wanted))
    .sort((a, b) => thing.probabilities[b.target] - thing.probabilities[a.target])
    .slice(0, LISTED);
  const shown = new Set(panels.map((panel) => panel.target));
  $("list").replaceChildren(...ranking.map(({label, target}) => {
    const item = document.createElement("li"), button = document.createElement("button");
    const bar = document.createElement("span"), name = document.createElement("span");
    const value = document.createElement("span"), p = thing.probabilities[target];
    [bar.className, name.className] = ["bar", "name"];
    bar.style.width = `${100 * Math.min(1, Math.max(0, p))}%`;
    [name.textContent, value.textContent] = [label, percent(p)];
    button.append(bar, name, value);
    button.setAttribute("aria-pressed", shown.has(target));
    button.dataset.target = target;
    button.onclick = () => choose(target);
    item.append(button);
    return item;
  }));
}

// --- Panels ------------------------------------------------------------------------------------

function showPanels() {
  $("panels").className = `${panels.length > 1 ? "two" : ""} ${images() ? "" : "words"}`;
  $("panels").replaceChildren(...panels.map((panel, number) => {
    const element = $("panel").content.cloneNode(true).firstElementChild;
    panel.element = element;
    element.classList.toggle("active", number === active);
    element.querySelector("h3").textContent = model.labels[panel.target];
    element.querySelector(".going").hidden = !model.asks;
    element.onclick = () => {
      active = number;
      [...$("panels").children].forEach((e, i) => e.classList.toggle("active", i === active));
    };
    const slider = element.querySelector(".going input");
    slider.value = panel.removed;
    slider.oninput = () => {
      panel.removed = Number(slider.value);
      draw(panel);
      goOn(panel);
    };
    return element;
  }));
  showClasses();
  panels.forEach(draw);
}

function draw(panel) {
  const map = thing.maps[panel.target];
  if (!map) return;
  const flat = map.logits.flat(), order = [...flat.keys()].sort((a, b) => flat[b] - flat[a]);
  const removed = new Set(order.slice(0, Math.round(order.length * panel.removed / 10)));
  const place = panel.element.querySelector(".map");
  place.replaceChildren(images() ? canvasOf(map, removed) : wordsOf(map, removed));
  const things = images() ? "patches" : "words";
  panel.element.querySelector(".gone").textContent = panel.removed
    ? `${10 * panel.removed}\u00a0% of the ${things} removed`
    : `Remove the most important ${things}`;
  const says = panel.element.querySelector(".says"), svg = panel.element.querySelector("svg");
  const whole = thing.probabilities[panel.target];
  says.textContent = `The classifier says ${percent(whole)}`;
  svg.style.visibility = panel.curve ? "visible" : "hidden";
  if (panel.removed) {
    says.textContent = panel.curve
      ? `The classifier says ${percent(panel.curve[panel.removed])}, with everything ${percent(whole)}`
      : "Asking the classifier …";
  }
  if (panel.curve) {
    const top = Math.max(...panel.curve, 1e-9), low = Math.min(...panel.curve, 0);
    svg.querySelector("polyline").setAttribute("points", panel.curve.map(
      (value, step) => `${10 * step},${40 - 40 * (value - low) / (top - low)}`).join(" "));
    const line = svg.querySelector("line");
    ["x1", "x2"].forEach((end) => line.setAttribute(end, 10 * panel.removed));
  }
}

// λ as it is, of words less what it would be of a word as far below the middle one: a word that
// speaks against the class is below 0, and those that say nothing are near it. φ, which has no
// scale, over its largest.
function strengths(map) {
  const flat = map.attributions.flat();
  if (!model.absolute) {
    const most = Math.max(...flat.map(Math.abs), 1e-9);
    return flat.map((value) => value / most);
  }
  if (images()) return flat;
  const logits = map.logits.flat(), sorted = [...logits].sort((a, b) => a - b);
  const middle = sorted[Math.floor(sorted.length / 2)];
  return logits.map((z) => sigmoid(z) - sigmoid(2 * middle - z));
}

const sigmoid = (z) => 1 / (1 + Math.exp(-z));

function canvasOf(map, removed) {
  const [rows, columns] = model.grid, values = strengths(map), {width: w, height: h} = thing.image;
  const [across, down] = [w, h].map((side) => Math.ceil(448 * side / Math.max(w, h)));
  const canvas = Object.assign(document.createElement("canvas"), {width: across, height: down});
  const context = canvas.getContext("2d");
  context.drawImage(thing.image, 0, 0, across, down);
  const small = Object.assign(document.createElement("canvas"), {width: columns, height: rows});
  const pixels = new ImageData(columns, rows), opacity = $("opacity").value / 100;
  values.forEach((value, cell) => {
    const v = Math.min(1, Math.abs(value));
    const colour = value < 0 ? [40, 90, 255] : [255, 220 - 190 * v, 30];
    pixels.data.set([...colour, 255 * opacity * Math.sqrt(v)], 4 * cell);
  });
  small.getContext("2d").putImageData(pixels, 0, 0);
  context.drawImage(small, 0, 0, across, down);  // smoothed
  context.fillStyle = "#808080";
  const [height, width] = [down / rows, across / columns];
  for (const cell of removed) {
    context.fillRect(cell % columns * width, Math.floor(cell / columns) * height, width, height);
  }
  return canvas;
}

function wordsOf(map, removed) {
  const text = document.createElement("div"), values = strengths(map);
  const characters = Array.from(thing.text), opacity = $("opacity").value / 100;
  let position = 0;
  thing.spans.map((span, word) => ({span, word})).sort((a, b) => a.span[0] - b.span[0])
    .forEach(({span: [start, stop], word}) => {
      if (start < position) return;
      const mark = document.createElement("mark"), value = values[word];
      const hue = value < 0 ? "60, 110, 255" : "255, 120, 20";
      mark.textContent = characters.slice(start, stop).join("");
      mark.style.background = `rgba(${hue}, ${opacity * Math.min(1, Math.abs(value))})`;
      mark.title = map.attributions[word].toFixed(3);
      mark.classList.toggle("removed", removed.has(word));
      text.append(characters.slice(position, start).join(""), mark);
      position = stop;
    });
  text.append(characters.slice(position).join(""));
  return text;
}

// --- What comes in -----------------------------------------------------------------------------

function take(file) {
  if (!file) return;
  const reader = new FileReader();
  reader.onload = () => begin(reader.result);
  reader.readAsDataURL(file);
}

async function start() {
  model = await (await fetch("/model")).json();
  const {name, labels, modality} = model;
  document.title = `${name} · fex-jax`;
  $("about").textContent = `${name}: a classifier of ${modality} with ${labels.length} classes, `
    + "and the explainer that was trained for it.";
  $("search").hidden = labels.length <= LISTED;
  $("search").oninput = () => thing && showClasses();
  $("opacity").oninput = () => panels.forEach(draw);
  $("compare").onchange = () => {
    if (!thing) return;
    if ($("compare").checked) {
      const best = model.labels.map((_, k) => k).filter((k) => k !== panels[0].target)
        .sort((a, b) => thing.probabilities[b] - thing.probabilities[a])[0];
      active = panels.push(panelOf(best ?? panels[0].target)) - 1;
      choose(panels[active].target);
    } else {
      [panels, active] = [[panels[0]], 0];
      showPanels();
    }
  };
  if (!images()) {
    $("write").hidden = false;
    let waiting;
    $("text").oninput = () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => $("text").value.trim() && begin($("text").value), 250);
    };
    $("text").focus();
  } else {
    $("drop").hidden = false;
    $("file").onchange = () => { take($("file").files[0]); $("file").value = ""; };
    document.ondragover = (event) => { event.preventDefault(); $("drop").classList.add("over"); };
    document.ondragleave = () => $("drop").classList.remove("over");
    document.ondrop = (event) => {
      event.preventDefault();
      $("drop").classList.remove("over");
      take(event.dataTransfer.files[0]);
    };
    document.onpaste = (event) => take([...event.clipboardData.files][0]);
  }
  document.body.dataset.state = "ready";
}

start().catch(fail);
