/**
 * Installs programs that only one check needs, separately from package.json, so that `npm ci` stays
 * small.
 */
const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

/**
 * Copies `source` (a package.json, its lock file and whatever lies beside them) to `folder` and
 * installs its packages there, if the lock file has changed since the last time.
 *
 * No install script runs: binaries come inside the packages.
 */
function installTools(source, folder, ...npmFlags) {
  const wanted = fs.readFileSync(path.join(source, 'package-lock.json'))
  const stamp = path.join(folder, 'installed')
  if (fs.existsSync(stamp) && fs.readFileSync(stamp).equals(wanted)) return
  fs.rmSync(folder, { recursive: true, force: true })
  fs.cpSync(source, folder, { recursive: true })
  execFileSync(
    'npm',
    ['ci', ...npmFlags, '--ignore-scripts', '--no-audit', '--no-fund', '--silent'],
    { cwd: folder, stdio: 'inherit' },
  )
  fs.writeFileSync(stamp, wanted)
}

module.exports = { installTools }
