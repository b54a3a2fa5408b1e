// The OpenAPI document, drawn for people.
import { translate, words } from "./words.js";

let document_;

async function start() {
  translate(document);
  document_ = await (await fetch("/openapi.json")).json();
  const { title, version, description } = document_.info;
  document.title = `${title} ${version} · ${words.docs}`;
  document.getElementById("name").textContent = `${title} · ${words.version(version).toLowerCase()}`;
  document.getElementById("lede").textContent = description;
  const sections = Object.entries(byTag()).map(([tag, found]) => section(tag, found));
  document.getElementById("operations").replaceChildren(...sections);
  document.querySelector("details.operation:has(.post)").open = true;
}

function byTag() {
  const found = {};
  for (const [path, item] of Object.entries(document_.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      const tag = operation.tags?.[0] ?? "";
      (found[tag] ??= []).push({ path, method, operation });
    }
  }
  return found;
}

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...children.filter((child) => child !== undefined));
  return made;
}

function section(tag, operations) {
  return element("section", "", element("h2", "tag", tag), ...operations.map(drawn));
}

function drawn({ path, method, operation }) {
  const summary = element(
    "summary",
    "",
    element("span", `method ${method}`, method.toUpperCase()),
    element("span", "path", path),
    element("span", "summary", operation.summary ?? ""),
  );
  const inside = element(
    "div",
    "inside",
    ...parameters(operation.parameters ?? []),
    ...body(operation.requestBody),
    ...replies(operation.responses),
  );
  return element("details", "operation", summary, inside);
}

function parameters(found) {
  if (!found.length) return [];
  const lines = found.map((each) => {
    const allowed = each.schema?.enum?.join(", ") ?? each.schema?.type ?? "";
    const about = [allowed, each.description, each.required ? words.required : ""];
    return line(each.name, about.filter(Boolean).join(" · "));
  });
  return [element("h3", "", words.headers), element("table", "", ...lines)];
}

function line(...cells) {
  return element("tr", "", ...cells.map((cell) => element("td", "", cell)));
}

function body(requestBody) {
  if (!requestBody) return [];
  const parts = [element("h3", "", words.body)];
  for (const [type, media] of Object.entries(requestBody.content)) {
    parts.push(element("div", "small", type));
    if (media.example) parts.push(json(media.example));
    if (media.schema?.properties) parts.push(folded(words.schema, media.schema));
  }
  return parts;
}

function replies(responses) {
  const lines = Object.entries(responses).map(([status, reply]) => {
    const types = Object.entries(reply.content ?? {});
    const schemas = types
      .filter(([, media]) => Object.keys(media.schema ?? {}).length)
      .map(([type, media]) => folded(type, media.schema));
    return line(status, element("div", "", reply.description, ...schemas));
  });
  return [element("h3", "", words.replies), element("table", "", ...lines)];
}

function folded(title, schema) {
  return element("details", "", element("summary", "", title), json(resolved(schema)));
}

function json(value) {
  const shown = element("pre", "", JSON.stringify(value, null, 2));
  shown.tabIndex = 0;
  return shown;
}

// A schema with what it refers to put in its place.
function resolved(schema) {
  if (Array.isArray(schema)) return schema.map(resolved);
  if (schema === null || typeof schema !== "object") return schema;
  if (schema.$ref) return resolved(target(schema.$ref));
  return Object.fromEntries(Object.entries(schema).map(([key, each]) => [key, resolved(each)]));
}

function target(reference) {
  return reference.split("/").slice(1).reduce((found, key) => found[key], document_);
}

start();
