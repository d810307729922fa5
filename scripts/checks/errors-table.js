/**
 * Checks that docs/errors.md has exactly the error codes of the engine, the binding and the
 * TypeScript: each in the table and in a section of its own, with a cause, a fix and an example or
 * the reason why there is none.
 */
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..', '..')
const PAGE = 'docs/errors.md'

function codesIn(folder, extension) {
  const codes = []
  for (const name of fs.readdirSync(path.join(root, folder), { recursive: true })) {
    if (!name.endsWith(extension)) continue
    const text = fs.readFileSync(path.join(root, folder, name), 'utf8')
    for (const [, code] of text.matchAll(/["'`](ERR_[A-Z_]+)["'`]/g)) codes.push(code)
  }
  return codes
}

/** Returns what the section of a code lacks. */
function lacks(section, code) {
  const example = /^```(?:console|sh)\n([^]*?)^```$/m.exec(section)?.[1]
  return [
    [/^Cause: \S/m.test(section), 'a line "Cause: ..."'],
    [/^Fix: \S/m.test(section), 'a line "Fix: ..."'],
    [
      /^There is no example: \S/m.test(section) ||
        /^<!-- not run: /m.test(section) ||
        example?.includes(code),
      'a console block that prints the code, or "There is no example: ..."',
    ],
  ].flatMap(([isThere, what]) => (isThere ? [] : [`${code} in ${PAGE} lacks ${what}`]))
}

const raised = new Set(
  ['kindling-core', 'kindling-napi'].flatMap((crate) => codesIn(`crates/${crate}/src`, '.rs')),
)
for (const code of codesIn('src', '.ts')) raised.add(code)
const page = fs.readFileSync(path.join(root, PAGE), 'utf8')
const listed = [...page.matchAll(/^\| \[`(ERR_[A-Z_]+)`\]\(#(\w+)\)/gm)].map(([, code]) => code)
const sections = new Map(
  page
    .split(/^## /m)
    .filter((text) => text.startsWith('ERR_'))
    .map((text) => [text.slice(0, text.indexOf('\n')), text]),
)

const problems = [
  ...[...raised].flatMap((code) => [
    ...(listed.includes(code) ? [] : [`${code} has no row in the table of ${PAGE}; add one`]),
    ...(sections.has(code)
      ? lacks(sections.get(code), code)
      : [`${code} has no section in ${PAGE}`]),
  ]),
  ...[...new Set([...listed, ...sections.keys()])]
    .filter((code) => !raised.has(code))
    .map((code) => `${code} is in ${PAGE} but does not occur in the code; remove it`),
]
process.stdout.write(problems.length > 0 ? `${problems.join('\n')}\n` : `${listed.length} codes\n`)
process.exitCode = problems.length > 0 ? 1 : 0
