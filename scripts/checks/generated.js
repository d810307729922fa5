/**
 * What `napi build` writes at the root, index.js and index.d.ts, equals what is committed (or staged).
 */
const { spawnSync } = require('node:child_process')
const path = require('node:path')

const root = path.join(__dirname, '..', '..')
const { status, stdout } = spawnSync(
  'git',
  ['-c', 'safe.directory=*', 'diff', '--exit-code', '--', 'index.js', 'index.d.ts'],
  {
    cwd: root,
    encoding: 'utf8',
  },
)
if (status !== 0) {
  process.stdout.write(`${stdout}index.js or index.d.ts changed with the binding; commit them\n`)
  process.exitCode = 1
}
