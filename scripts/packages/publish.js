/**
 * Publishes the tarballs of target/packages to npm with provenance: the platform packages, then the
 * main package, whose installation needs them. A version that is already there is left alone, so an
 * interrupted release can be run again.
 *
 * Usage: node scripts/packages/publish.js, after pack.js --all
 */
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { root } = require('./platforms')

const folder = path.join(root, 'target', 'packages')

/** Returns the name and version of the package laid out in a folder. */
function identity(name) {
  const file = path.join(folder, name, 'package.json')
  const { name: packageName, version } = JSON.parse(fs.readFileSync(file, 'utf8'))
  return `${packageName}@${version}`
}

const isPublished = (id) => spawnSync('npm', ['view', id, 'version']).stdout.toString() !== ''

const names = fs
  .readdirSync(folder)
  .filter((name) => fs.statSync(path.join(folder, name)).isDirectory())
const ordered = [...names.filter((name) => name !== 'main'), 'main']
for (const name of ordered) {
  const id = identity(name)
  if (isPublished(id)) {
    process.stdout.write(`${id} is already published\n`)
    continue
  }
  const args = ['publish', '--provenance', '--access', 'public']
  const { status } = spawnSync('npm', args, { cwd: path.join(folder, name), stdio: 'inherit' })
  if (status !== 0) process.exit(1)
}
