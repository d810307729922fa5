/** Checks that index.d.ts, which `napi build` generates, is committed or staged as it is now. */
const { spawnSync } = require('node:child_process')
const path = require('node:path')

const root = path.join(__dirname, '..', '..')
const { status, stdout } = spawnSync(
  'git',
  ['-c', 'safe.directory=*', 'diff', '--exit-code', '--', 'index.d.ts'],
  {
    cwd: root,
    encoding: 'utf8',
  },
)
if (status !== 0) {
  process.stdout.write(`${stdout}the build changed index.d.ts; commit it\n`)
  process.exitCode = 1
}
