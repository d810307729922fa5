/**
 * Checks that the table in docs/errors.md has exactly the error codes of the engine, the binding
 * and the TypeScript.
 */
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..', '..')

function codesIn(folder, extension) {
  const codes = []
  for (const name of fs.readdirSync(path.join(root, folder), { recursive: true })) {
    if (!name.endsWith(extension)) continue
    const text = fs.readFileSync(path.join(root, folder, name), 'utf8')
    for (const [, code] of text.matchAll(/["'`](ERR_[A-Z_]+)["'`]/g)) codes.push(code)
  }
  return codes
}

const raised = new Set(
  ['kindling-core', 'kindling-napi'].flatMap((crate) => codesIn(`crates/${crate}/src`, '.rs')),
)
for (const code of codesIn('src', '.ts')) raised.add(code)
const table = fs.readFileSync(path.join(root, 'docs', 'errors.md'), 'utf8')
const listed = new Set([...table.matchAll(/^\| `(ERR_[A-Z_]+)`/gm)].map((found) => found[1]))

const problems = [
  ...[...raised]
    .filter((code) => !listed.has(code))
    .map((code) => `${code} has no row in docs/errors.md; add one`),
  ...[...listed]
    .filter((code) => !raised.has(code))
    .map(
      (code) =>
        `${code} has a row in docs/errors.md but does not occur in the code; remove the row`,
    ),
]
process.stdout.write(problems.length > 0 ? `${problems.join('\n')}\n` : `${listed.size} codes\n`)
process.exitCode = problems.length > 0 ? 1 : 0
