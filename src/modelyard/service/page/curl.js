// The call that the page makes, as a command for a terminal.

const quoted = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;

// `files` maps a column to the name of the file that its value was read from: the command reads it too.
// A key is never shown: where one is needed, the command takes it from the environment.
export function command(address, row, files, keyed) {
  const key = keyed ? ` \\\n  -H "Authorization: Bearer $MODELYARD_KEY"` : "";
  const call = `curl ${address}${key} \\\n  -H 'Content-Type: application/json'`;
  const columns = Object.keys(row).filter((column) => column in files);
  if (!columns.length) return `${call} \\\n  -d ${quoted(JSON.stringify({ rows: [row] }))}`;
  const contents = columns.map((column) => `"$(base64 < ${quoted(files[column])} | tr -d '\\n')"`);
  return `printf ${quoted(template(row, files))} \\\n  ${contents.join(" \\\n  ")} |\n${call} -d @-`;
}

// JSON as printf takes it, with %s where a file's content goes.
function template(row, files) {
  const place = crypto.getRandomValues(new Uint32Array(2)).join("");
  const shown = Object.entries(row).map(([column, value]) => [column, column in files ? place : value]);
  const json = JSON.stringify({ rows: [Object.fromEntries(shown)] });
  return json.replaceAll("\\", "\\\\").replaceAll("%", "%%").replaceAll(place, "%s");
}
