/**
 * Checks that every function of the addon catches panics: a panic that unwinds into Node.js ends
 * the process. Long calls catch their own as well, but only after they have read their arguments.
 */
const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..', '..')
const files = execFileSync('git', ['ls-files', 'crates/kindling-napi/src'], { cwd: root })
const bare = []
let found = 0
for (const file of files.toString().split('\n').filter(Boolean)) {
  const text = fs.readFileSync(path.join(root, file), 'utf8')
  // The attribute, other attributes and comments, then the function.
  const bound =
    /#\[napi(?:\(([^\]]*)\))?\]\s*(?:(?:#\[[^\]]*\]|\/\/[^\n]*)\s*)*pub (?:async )?fn (\w+)/g
  for (const [, options = '', name] of text.matchAll(bound)) {
    found += 1
    if (!options.includes('catch_unwind')) bare.push(`${file}: ${name}`)
  }
}
for (const name of bare) console.error(`${name} has no catch_unwind`)
console.log(`${found - bare.length} passed, ${bare.length} failed`)
process.exitCode = bare.length > 0 || found === 0 ? 1 : 0
