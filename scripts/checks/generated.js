/**
 * Checks that index.js and index.d.ts, which `napi build` generates, are committed or staged as
 * they are now.
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
  process.stdout.write(`${stdout}the build changed index.js or index.d.ts; commit them\n`)
  process.exitCode = 1
}
