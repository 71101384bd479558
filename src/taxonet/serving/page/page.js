// The page: pictures go to this server in small requests, answers come back in order. No library, nothing from elsewhere.
import { TEXTS } from "./texts.js";

const AT_ONCE = 4; // pictures of a request: the first answers come soon, and one request never fills the queue
const REQUESTS = 2; // under way at a time
const TRIES = 8; // of a request that the server is too busy for
const SHOWN = 24; // answers, or networks, before "more"

const byId = (id) => document.getElementById(id);
const state = { language: "en", models: [], card: null, answers: [], shown: SHOWN, work: null, waiting: [], done: 0, total: 0, catalogue: null, networks: SHOWN };

// ---- words

function text(key, values = {}) {
  return TEXTS[state.language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function speak(language) {
  state.language = language;
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  byId("language").textContent = text("language");
  showCard();
  showAnswers();
  if (state.catalogue) {
    fillFamilies();
    showNetworks();
  }
}

function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (key === "class") element.className = value;
    else if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const percent = (value) => `${(100 * value).toFixed(1)} %`;
const count = (value) => new Intl.NumberFormat(state.language).format(value);
function short(value) {
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (value >= size) return `${(value / size).toPrecision(3)} ${unit}`;
  return String(value);
}

function say(words) {
  byId("message").textContent = words;
}

// ---- the server

const token = () => sessionStorage.getItem("taxonet-token");

async function ask(address, options = {}) {
  const headers = { ...options.headers };
  if (token()) headers.authorization = `Bearer ${token()}`;
  let response;
  try {
    response = await fetch(address, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(text("gone"));
  }
  if (response.status === 401) {
    const known = token();
    sessionStorage.removeItem("taxonet-token");
    byId("token-form").hidden = false;
    throw new Error(known ? text("tokenWrong") : "");
  }
  return response;
}

async function told(response) {
  try {
    return (await response.json()).detail || response.statusText;
  } catch {
    return response.statusText;
  }
}

async function patiently(address, options, signal) {
  for (let tries = 1; ; tries += 1) {
    const response = await ask(address, { ...options, signal });
    if (response.status !== 503 || tries === TRIES) return response;
    const seconds = Math.min(10, Number(response.headers.get("retry-after")) || 1);
    say(text("busy", { s: seconds }));
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    if (signal.aborted) throw new DOMException("stopped", "AbortError");
    say("");
  }
}

// ---- models

async function loadModels() {
  const response = await ask("v1/models");
  if (!response.ok) throw new Error(await told(response));
  state.models = await response.json();
  byId("models").replaceChildren(...state.models.map((model) => make("option", { value: model.name }, model.name)));
  await chooseModel();
}

async function chooseModel() {
  const name = byId("models").value;
  const response = await ask(`v1/models/${encodeURIComponent(name)}`);
  if (!response.ok) throw new Error(await told(response));
  state.card = await response.json();
  if (!state.answers.length) byId("threshold").value = Math.round(100 * (state.card.calibration.threshold ?? 0));
  showCard();
  showThreshold();
}

function line(term, ...value) {
  return [make("dt", {}, term), make("dd", {}, ...value)];
}

function paperLink(paper) {
  const words = `${paper.title}, ${paper.authors}, ${paper.venue}`;
  if (!paper.arxiv) return words;
  return make("a", { href: `https://arxiv.org/abs/${paper.arxiv}`, rel: "noreferrer" }, words);
}

function measured(all) {
  const metrics = all.test || all.validation || all;
  const [low, high] = metrics.top1_ci || [];
  if (metrics.top1 === undefined || low === undefined) return null;
  return text("interval", { top1: percent(metrics.top1), low: percent(low), high: percent(high), n: metrics.n ?? "?" });
}

function showCard() {
  const card = state.card;
  if (!card) return;
  const [height, width, channels] = card.input_size;
  const accuracy = measured(card.metrics);
  byId("card").replaceChildren(
    ...line(text("network"), card.variant),
    ...(card.paper ? line(text("paper"), paperLink(card.paper)) : []),
    ...(card.parameters ? line(text("parameters"), count(card.parameters)) : []),
    ...(card.multiply_adds ? line(text("macs"), short(card.multiply_adds)) : []),
    ...(accuracy ? line(text("accuracy"), accuracy) : []),
    ...line(text("classesOf"), `${count(card.classes.length)}: ${card.classes.slice(0, 6).join(", ")}${card.classes.length > 6 ? " …" : ""}`),
    ...line(text("input"), `${width} × ${height} × ${channels}`),
    ...line(text("preprocessing"), card.preprocessing),
    ...line(text("licence"), card.licence || text("unknown")),
    ...line(text("engine"), card.engine),
  );
  const address = new URL(`v1/models/${encodeURIComponent(card.name)}/predict`, location.href).href.split("#")[0];
  const auth = token() ? ' -H "Authorization: Bearer $TOKEN"' : "";
  byId("curl").textContent = `curl${auth} -F files=@photo.jpg -F files=@other.jpg ${address}`;
  const headers = token() ? ', headers={"Authorization": f"Bearer {token}"}' : "";
  byId("python").textContent = `import requests\n\nwith open("photo.jpg", "rb") as photo:\n    answers = requests.post(\n        "${address}", files=[("files", photo)]${headers}\n    ).json()\nprint(answers[0]["predictions"][0]["label"])`;
}

function threshold() {
  return Number(byId("threshold").value) / 100;
}

function showThreshold() {
  byId("threshold-value").textContent = `${byId("threshold").value} %`;
  showAnswers();
}

// ---- classifying

async function classify(files) {
  const model = byId("models").value;
  if (!files.length || !model) return;
  const start = state.answers.length;
  const fresh = files.map((file, i) => ({ name: file.name || text("picture", { n: start + i + 1 }), file, model, found: null }));
  state.answers.push(...fresh);
  for (let i = 0; i < fresh.length; i += AT_ONCE) state.waiting.push(fresh.slice(i, i + AT_ONCE));
  state.total += fresh.length;
  advance(0);
  if (!state.work) await workOff();
}

function advance(n) {
  state.done += n;
  byId("progress").value = state.total ? state.done / state.total : 0;
  byId("progress-text").textContent = text("going", { done: state.done, total: state.total });
  showAnswers();
}

async function workOff() {
  const work = (state.work = new AbortController());
  say("");
  byId("work").hidden = false;
  const run = async () => {
    for (let part = state.waiting.shift(); part; part = state.waiting.shift()) {
      await send(part, work.signal);
      advance(part.length);
    }
  };
  try {
    while (state.waiting.length) await Promise.all(Array.from({ length: REQUESTS }, run));
  } catch (error) {
    work.abort();
    say(error.name === "AbortError" ? text("stopped", { done: state.done, total: state.total }) : error.message);
  }
  Object.assign(state, { work: null, waiting: [], done: 0, total: 0 });
  state.answers = state.answers.filter((answer) => answer.found);
  byId("work").hidden = true;
  showAnswers();
}

async function send(part, signal) {
  const form = new FormData();
  for (const answer of part) form.append("files", answer.file, answer.name);
  const address = `v1/models/${encodeURIComponent(part[0].model)}/predict?top=5&preview=true&threshold=0`;
  const response = await patiently(address, { method: "POST", body: form }, signal);
  if (response.ok) {
    const found = await response.json();
    part.forEach((answer, i) => (answer.found = found[i]));
  } else if (part.length > 1) {
    for (const answer of part) await send([answer], signal); // one of them is too much: the others are answered
  } else {
    part[0].found = { predictions: [], error: await told(response), refused: true, timing: null, preview: null };
  }
}

const milliseconds = (timing) => (timing ? Object.values(timing).reduce((sum, value) => sum + value, 0) : 0);
const unsure = (found) => found.predictions.length > 0 && found.predictions[0].probability < threshold();

function verdict(found) {
  if (found.error) return make("span", { class: "badge error", title: found.error }, text(found.refused ? "refused" : "cannot"));
  if (unsure(found)) return make("span", { class: "badge unsure" }, text("notSure"));
  return found.predictions[0].label;
}

function showAnswers() {
  const answered = state.answers.filter((answer) => answer.found);
  byId("table-part").hidden = answered.length === 0;
  const bad = answered.filter((answer) => answer.found.error).length;
  byId("summary").textContent = text("summary", { n: answered.length, unsure: answered.filter((a) => unsure(a.found)).length, bad });
  byId("rows").replaceChildren(...answered.map(({ name, found }) => make("tr", {},
    make("td", { title: name }, name), make("td", {}, verdict(found)),
    make("td", { class: "number" }, found.error ? "" : percent(found.predictions[0].probability)),
    make("td", { class: "number" }, found.timing ? milliseconds(found.timing).toFixed(0) : ""))));
  byId("answers").replaceChildren(...answered.slice(0, state.shown).map(showAnswer));
  const left = answered.length - state.shown;
  byId("more").hidden = left <= 0;
  byId("more").textContent = text("more", { n: left });
}

function showAnswer(answer) {
  const { name, found, model } = answer;
  const picture = found.preview ? make("img", { src: answer.heat || found.preview, alt: answer.heat ? text("heatAlt", { label: found.predictions[0].label }) : text("seenAlt", { name }) }) : null;
  const figure = make("figure", {}, picture);
  if (picture) figure.append(make("figcaption", {}, answer.heat ? text("heatAlt", { label: found.predictions[0].label }) : text("seen")));
  if (picture && state.models.find((one) => one.name === model)?.explains) {
    const button = make("button", { type: "button", class: "quiet" }, answer.heat ? text("noHeat") : text("heat"));
    button.addEventListener("click", () => toggleHeat(answer, button));
    figure.append(button);
  }
  const scores = found.predictions.map((score) => {
    const bar = make("span", { class: "bar" });
    bar.style.width = `${100 * score.probability}%`;
    return make("li", {}, bar, make("span", {}, score.label), make("span", {}, percent(score.probability)));
  });
  const rounded = found.timing && Object.fromEntries(Object.entries(found.timing).map(([key, value]) => [key, value.toFixed(1)]));
  return make("li", { class: "answer" }, figure, make("div", {},
    make("h3", {}, name),
    state.models.length > 1 ? make("p", { class: "dim" }, `${text("model")}: ${model}`) : null,
    found.error || unsure(found) ? verdict(found) : null,
    found.error ? make("p", {}, found.error) : make("ol", { class: "scores" }, ...scores),
    rounded ? make("p", { class: "dim" }, text("timing", rounded)) : null));
}

async function toggleHeat(answer, button) {
  if (answer.heat) {
    answer.heat = null;
    showAnswers();
    return;
  }
  button.disabled = true;
  try {
    const address = `v1/models/${encodeURIComponent(answer.model)}/explain`;
    const response = await ask(address, { method: "POST", body: answer.file, headers: { "content-type": "application/octet-stream" } });
    if (!response.ok) throw new Error(await told(response));
    answer.heat = URL.createObjectURL(await response.blob());
    say("");
  } catch (error) {
    say(error.message);
  }
  showAnswers();
}

function download() {
  const cell = (value) => {
    const words = String(value ?? "");
    const safe = /^[=+\-@\t\r]/.test(words) && Number.isNaN(Number(words)) ? `'${words}` : words; // a sheet would run it
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const rows = [["path", "label", "probability", "abstained", "error", "model"]];
  for (const { name, found, model } of state.answers.filter((answer) => answer.found)) {
    const first = found.predictions[0];
    rows.push([name, first?.label, first?.probability.toFixed(6), first ? (unsure(found) ? "yes" : "no") : "", found.error, model]);
  }
  const table = "\ufeff" + rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
  const link = make("a", { href: URL.createObjectURL(new Blob([table], { type: "text/csv" })), download: "answers.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function clear() {
  if (state.work) state.work.abort();
  for (const answer of state.answers) if (answer.heat) URL.revokeObjectURL(answer.heat);
  state.answers = [];
  state.shown = SHOWN;
  showAnswers();
}

// ---- networks

async function loadCatalogue() {
  if (state.catalogue) return;
  const response = await ask("v1/catalogue");
  if (!response.ok) throw new Error(await told(response));
  state.catalogue = await response.json();
  fillFamilies();
  showNetworks();
}

function fillFamilies() {
  const chosen = byId("family").value;
  byId("family").replaceChildren(make("option", { value: "" }, text("every")),
    ...state.catalogue.families.map((family) => make("option", { value: family.family }, family.title)));
  byId("family").value = chosen;
}

function showNetworks() {
  const word = byId("search").value.trim().toLowerCase();
  const family = byId("family").value;
  const families = Object.fromEntries(state.catalogue.families.map((one) => [one.family, one]));
  const fits = (one) => (!family || one.family === family) && (!byId("with-weights").checked || one.weights.length)
    && `${one.name} ${families[one.family].title} ${families[one.family].paper.title}`.toLowerCase().includes(word);
  const found = state.catalogue.networks.filter(fits);
  byId("found").textContent = found.length ? text("found", { n: found.length, all: state.catalogue.networks.length }) : text("noNetwork");
  byId("catalogue").replaceChildren(...found.slice(0, state.networks).map((one) => showNetwork(one, families[one.family])));
  const left = found.length - state.networks;
  byId("more-networks").hidden = left <= 0;
  byId("more-networks").textContent = text("more", { n: left });
}

function showNetwork(one, family) {
  const facts = `${short(one.parameters)} ${text("parameters")}${one.multiply_adds ? `, ${short(one.multiply_adds)} ${text("macs")}` : ""}`;
  const details = make("details", {}, make("summary", {}, make("h3", {}, one.name), make("span", { class: "dim" }, facts)));
  details.addEventListener("toggle", () => details.open && details.childElementCount === 1 && open(details, one, family));
  return make("li", { class: "network" }, details);
}

function open(details, one, family) {
  const published = one.published.map((figure) => `${[figure.data, figure.metric].filter(Boolean).join(" ")} ${figure.value} ${figure.unit} (${figure.source})`);
  const drawing = make("div", {});
  const call = `import taxonet\n\nnetwork = taxonet.create_model("${one.name}"${one.weights.length ? `, weights="${one.weights[0].name}"` : ""})`;
  const shell = one.weights.length ? `taxonet predict photo.jpg -m ${one.weights[0].name}` : `taxonet train PHOTOS --model ${one.name} --out RUN`;
  details.append(
    ...family.idea.split("\n\n").map((paragraph) => make("p", {}, paragraph)),
    make("dl", {},
      ...line(text("paper"), paperLink(family.paper)),
      ...line(text("input"), `${one.input_size} × ${one.input_size}`),
      ...line(text("classesOf"), count(one.classes)),
      ...(published.length ? line(text("published"), published.join("; ")) : []),
      ...line(text("weights"), ...(one.weights.length ? one.weights.map((entry) => make("div", {}, `${entry.name}: ${text("fromWhere", { source: entry.source })}; ${text("licence")}: ${entry.licence === "unknown" ? text("unknown") : entry.licence}`)) : [text("noWeights")])),
    ),
    make("pre", {}, call), make("pre", {}, shell), drawing);
  draw(one.name, drawing);
}

async function draw(name, place) {
  try {
    const response = await ask(`v1/catalogue/${encodeURIComponent(name)}/drawing`);
    if (!response.ok) throw new Error(await told(response));
    place.append(make("img", { class: "drawing", alt: `${name}: ${text("drawing")}`, src: URL.createObjectURL(await response.blob()) }));
  } catch (error) {
    place.append(make("p", { class: "dim" }, text("drawingFails", { why: error.message })));
  }
}

// ---- the page itself

function route() {
  const networks = location.hash === "#networks";
  byId("networks").hidden = !networks;
  byId("classify").hidden = networks;
  for (const link of document.querySelectorAll("nav a")) {
    if ((link.hash === "#networks") === networks) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (networks) guarded(loadCatalogue)();
}

function guarded(work) {
  return async (...values) => {
    try {
      await work(...values);
    } catch (error) {
      say(error.message);
    }
  };
}

function listen() {
  byId("language").addEventListener("click", () => {
    const language = state.language === "en" ? "zh" : "en";
    localStorage.setItem("taxonet-language", language);
    speak(language);
  });
  byId("choose").addEventListener("click", () => byId("files").click());
  byId("camera").addEventListener("click", () => byId("photo").click());
  for (const id of ["files", "photo"]) {
    byId(id).addEventListener("change", (event) => {
      classify([...event.target.files]);
      event.target.value = "";
    });
  }
  const drop = byId("drop");
  for (const kind of ["dragenter", "dragover"]) addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget === null && drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    classify([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => classify([...event.clipboardData.files]));
  addEventListener("hashchange", route);
  byId("models").addEventListener("change", guarded(chooseModel));
  byId("threshold").addEventListener("input", showThreshold);
  byId("stop").addEventListener("click", () => state.work?.abort());
  byId("csv").addEventListener("click", download);
  byId("clear").addEventListener("click", clear);
  byId("more").addEventListener("click", () => {
    state.shown += 4 * SHOWN;
    showAnswers();
  });
  byId("more-networks").addEventListener("click", () => {
    state.networks += 4 * SHOWN;
    showNetworks();
  });
  for (const id of ["search", "family", "with-weights"]) byId(id).addEventListener("input", () => {
    state.networks = SHOWN;
    showNetworks();
  });
  byId("token-form").addEventListener("submit", guarded(async (event) => {
    event.preventDefault();
    const given = byId("token").value.trim();
    if (!/^[\x21-\x7e]+$/.test(given)) throw new Error(text("tokenWrong"));
    sessionStorage.setItem("taxonet-token", given);
    await loadModels();
    byId("token").value = "";
    byId("token-form").hidden = true;
    say("");
    route();
  }));
  document.addEventListener("click", guarded(async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(byId(button.dataset.copy).textContent);
    button.textContent = text("copied");
    setTimeout(() => (button.textContent = text("copy")), 1500);
  }));
}

const chosen = localStorage.getItem("taxonet-language");
speak(chosen || ((navigator.languages || [navigator.language])[0].toLowerCase().startsWith("zh") ? "zh" : "en"));
listen();
route();
guarded(loadModels)();
