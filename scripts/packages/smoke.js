/**
 * Trains a model with the addon of this platform, from CommonJS, an ES module and worker threads,
 * as the release workflow does before it publishes. Needs `npm ci`, `npm run build:ts` and the
 * addon in the root folder.
 *
 * Usage: node scripts/packages/smoke.js
 */
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { FILES } = require('./consumers/program')
const { root } = require('./platforms')

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'kindling-smoke-'))
fs.mkdirSync(path.join(folder, 'node_modules'))
fs.symlinkSync(root, path.join(folder, 'node_modules', 'kindling'), 'junction')
for (const [name, text] of Object.entries(FILES)) fs.writeFileSync(path.join(folder, name), text)

let failed = 0
const programs = ['program.cjs', 'program.mjs', 'workers.cjs']
for (const program of programs) {
  const options = { cwd: folder, encoding: 'utf8', timeout: 300_000 }
  const { status, stdout, stderr } = spawnSync(process.execPath, [program], options)
  const passed = status === 0 && stdout.includes('trained and generated')
  if (!passed) failed++
  process.stdout.write(passed ? `ok ${program}\n` : `not ok ${program}\n${stdout}${stderr}\n`)
}
fs.rmSync(folder, { recursive: true, force: true })
process.stdout.write(`${programs.length - failed} passed, ${failed} failed\n`)
process.exitCode = failed > 0 ? 1 : 0
