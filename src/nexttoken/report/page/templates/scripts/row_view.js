// One row: its texts as the task shows them, what each run answered, and the prompt that the model read.

// Marks that turn the direction of writing are shown as such, so that they turn nothing.
function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  const mark = (found) => `⟨U+${found.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
  if (text !== undefined) element.textContent = text.replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, mark);
  return element;
}

function addTo(parent, ...children) {
  parent.append(...children.filter(Boolean));
  return parent;
}

// The classes of a row with a run's probabilities of them, null where they are not known.
function answersOf(data, run, row) {
  const begin = (run * data.ids.length + row) * data.slots;
  const known = data.losses[run * data.ids.length + row] !== null;
  return Array.from({ length: data.slots }, (_, slot) => ({
    class: data.top ? data.top[begin + slot] : slot,
    prob: known ? data.probs[begin + slot] / 10000 : null,
  }));
}

function percent(prob) {
  return prob === null || prob === undefined || prob < 0 ? "–" : `${(100 * prob).toFixed(prob < 0.1 ? 1 : 0)} %`;
}

function bar(prob, colour) {
  const track = make("span", `prob s${colour}`);
  track.setAttribute("aria-hidden", "true");
  const filled = make("span");
  filled.style.width = `${100 * Math.max(prob || 0, 0)}%`;
  return addTo(track, filled);
}

function headed(tag, scope, text) {
  const cell = make(tag, "", text);
  cell.setAttribute("scope", scope);
  return cell;
}

function probabilityCell(prob, colour) {
  const cell = make("td");
  if (prob !== null && prob !== undefined && prob >= 0) cell.dataset.value = prob;
  return addTo(cell, bar(prob, colour), make("span", "", percent(prob)));
}

// Columns of the table of probabilities: the chosen run, its two orders where known, then the other runs.
function columnsOf(data, run, row) {
  const columns = [{ name: data.runs[run], by: new Map(answersOf(data, run, row).map((one) => [one.class, one.prob])) }];
  for (const [name, parts] of [["as it is", data.straight[run]], ["answers swapped", data.swapped[run]]]) {
    const size = data.names.length;
    if (!parts || parts[row * size] < 0) continue;
    const own = parts.slice(row * size, (row + 1) * size);
    columns.push({ name, by: new Map(own.map((part, place) => [place, part / 10000])) });
  }
  data.runs.forEach((name, other) => {
    const answers = answersOf(data, other, row);
    if (other !== run && answers[0].prob !== null) {
      columns.push({ name, by: new Map(answers.map((one) => [one.class, one.prob])) });
    }
  });
  return columns;
}

function probabilityTable(data, run, row) {
  const columns = columnsOf(data, run, row);
  const box = make("div", "scroll");
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", "Probabilities of the classes");
  const table = make("table");
  const head = addTo(make("tr"), headed("th", "col", "class"), ...columns.map((one) => headed("th", "col", one.name)));
  const body = make("tbody");
  for (const { class: own } of answersOf(data, run, row)) {
    const wanted = own === data.labels[row];
    const line = make("tr");
    const name = headed("th", "row", data.names[own] + (wanted ? " ✓ wanted" : ""));
    if (wanted) name.className = "good";
    addTo(line, name, ...columns.map((one, place) => probabilityCell(one.by.get(own), place % 8)));
    body.append(line);
  }
  return addTo(box, addTo(table, addTo(make("thead"), head), body));
}

function said(text, name) {
  const box = make("div", "said");
  if (name) box.append(make("p", "field", name));
  const words = make("div", text ? "" : "quiet", text || "(empty)");
  words.dir = "auto";
  return addTo(box, words);
}

// A pair: the fields of both sides beside each other, turn by turn below what they answer.
function pairTexts(data, texts) {
  const box = make("div");
  const sides = [0, 1].map((side) => data.fields.map((field, place) => [field, place]).filter(([field]) => field.side === side));
  const shared = data.fields.map((field, place) => [field, place]).filter(([field]) => field.side === undefined);
  const turns = Math.max(...texts.map((own) => own.length), 0);
  for (let turn = 0; turn < turns; turn += 1) {
    for (const [field, place] of shared) {
      if (turn < texts[place].length) box.append(said(texts[place][turn], turns > 1 ? `${field.name}, turn ${turn + 1}` : field.name));
    }
    const both = make("div", "pair");
    for (const side of sides) {
      const column = make("div");
      for (const [field, place] of side) {
        if (turn < texts[place].length) column.append(said(texts[place][turn], field.name));
      }
      both.append(column);
    }
    box.append(both);
  }
  return box;
}

function optionTexts(data, run, row, options) {
  const probs = new Map(answersOf(data, run, row).map((one) => [one.class, one.prob]));
  const list = make("ol", "options");
  options.forEach((option, place) => {
    const wanted = place === data.labels[row];
    const item = make("li", wanted ? "good" : "");
    const words = make("span", "", option + (wanted ? " ✓ wanted" : ""));
    words.dir = "auto";
    list.append(addTo(item, words, " ", bar(probs.get(place), 0), make("span", "quiet", percent(probs.get(place)))));
  });
  return addTo(make("div", "said"), make("p", "field", "options"), list);
}

function fieldTexts(data, run, row, field, turns) {
  if (field.kind === "options") return optionTexts(data, run, row, turns);
  if (field.kind === "passages") {
    const fold = addTo(make("details"), make("summary", "", `${field.name} (${turns.length})`));
    return addTo(fold, ...turns.map((turn) => said(turn)));
  }
  if (field.kind === "dialogue") {
    const box = make("div", "dialogue");
    turns.forEach((turn, place) => {
      const bubble = said(turn, place % 2 ? "assistant" : "user");
      bubble.classList.add(place % 2 ? "assistant" : "user");
      box.append(bubble);
    });
    return box;
  }
  return addTo(make("div"), ...turns.map((turn, place) => said(turn, turns.length > 1 ? `${field.name}, turn ${place + 1}` : field.name)));
}

function rowTexts(data, run, row) {
  const texts = data.texts[row];
  if (!texts) return make("p", "quiet", data.fields.length ? "The texts of this row are not in this page; rows=all keeps them." : "");
  if (data.fields.some((field) => field.kind === "side")) return pairTexts(data, texts);
  const shown = data.fields.map((field, place) => texts[place].length && fieldTexts(data, run, row, field, texts[place]));
  return addTo(make("div"), ...shown);
}

// The prompt with its control tokens and cuts marked, and the tokens of the labels behind it.
function promptTexts(data, run, row) {
  const prompt = data.prompts[row];
  const why = data.no_prompts ? `Prompts are not shown: ${data.no_prompts}` : "The prompt of this row is not in this page.";
  if (!prompt) return make("p", "quiet", `${why}`);
  const words = `What the model read: ${prompt.tokens.toLocaleString("en")} tokens${prompt.cut ? ", cut to fit" : ""} (run ${data.runs[0]})`;
  const fold = addTo(make("details", "prompt"), make("summary", "", words));
  const text = make("pre");
  text.tabIndex = 0;
  for (const [kind, piece] of prompt.pieces) {
    if (kind === 0) text.append(piece);
    else text.append(make("mark", kind === 2 ? "cut" : "special", kind === 2 ? `✂ ${piece}` : piece));
  }
  const spelled = data.spelled.map((one) => `${one.label.trim()} = ${one.tokens.map((token, place) => `${token} (${one.ids[place]})`).join(" ")}`);
  return addTo(fold, text, make("p", "quiet", `The answer is read here, from the label tokens: ${spelled.join(", ")}`));
}

function factsOf(data, run, row) {
  const at = run * data.ids.length + row;
  const facts = [`fold ${data.folds[row]}`, `wanted ${data.names[data.labels[row]]}`];
  if (data.losses[at] !== null) facts.push(`predicted ${data.names[data.guesses[at]]}`, `loss ${data.losses[at].toFixed(3)}`);
  const outside = data.outside[run] && data.outside[run][row];
  if (outside !== null && outside !== undefined) facts.push(`probability of other words than the labels ${percent(outside)}`);
  for (const [name, tag] of Object.entries(data.tags)) facts.push(`${name}: ${tag.values[tag.of[row]] || "(none)"}`);
  if (data.votes.length && data.votes[row].length) facts.push(`votes ${data.votes[row].map(percent).join(" / ")}`);
  return facts.join(" · ");
}

function drawRow(view, data, run, row, link) {
  view.replaceChildren();
  const heading = make("h4", "", "Row ");
  const anchor = make("a", "", data.ids[row]);
  anchor.href = link;
  addTo(view, addTo(heading, anchor), make("p", "quiet", factsOf(data, run, row)));
  addTo(view, probabilityTable(data, run, row), rowTexts(data, run, row), promptTexts(data, run, row));
}
