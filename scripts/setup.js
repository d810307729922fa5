/**
 * Installs the npm packages and builds the addon and the TypeScript, each only if it is out of
 * date. A build is up to date if the hash of its sources equals the one that the last build left in
 * .kindling/; file times do not matter.
 *
 * Usage: node scripts/setup.js (npm run build). `npm start` and `npm test` run it first.
 */
require('./toolchain').checkToolchain()

const { spawnSync } = require('node:child_process')
const crypto = require('node:crypto')
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..')
const stamps = path.join(root, '.kindling')

/** Returns all files under `entries`, in a fixed order. */
function filesUnder(entries) {
  const walk = (entry) =>
    fs.statSync(entry).isDirectory()
      ? fs
          .readdirSync(entry)
          .sort()
          .flatMap((name) => walk(path.join(entry, name)))
      : [entry]
  return entries
    .map((entry) => path.join(root, entry))
    .filter((entry) => fs.existsSync(entry))
    .flatMap(walk)
}

function hashOf(entries) {
  const hash = crypto.createHash('sha256').update(process.version)
  for (const file of filesUnder(entries))
    hash.update(`\0${path.relative(root, file)}\0`).update(fs.readFileSync(file))
  return hash.digest('hex')
}

function run(command, args) {
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: 'inherit',
    shell: process.platform === 'win32',
  })
  if (error) throw error
  if (status !== 0) {
    process.stderr.write(`failed: ${command} ${args.join(' ')}\n`)
    process.exit(1)
  }
}

/**
 * Returns whether node_modules has every package of package-lock.json that this platform needs, at
 * its version.
 */
function isInstalled() {
  const installed = path.join(root, 'node_modules', '.package-lock.json')
  if (!fs.existsSync(installed)) return false
  const actual = JSON.parse(fs.readFileSync(installed, 'utf8')).packages
  const wanted = JSON.parse(fs.readFileSync(path.join(root, 'package-lock.json'), 'utf8')).packages
  return Object.entries(wanted).every(
    ([name, { version, optional }]) => name === '' || optional || actual[name]?.version === version,
  )
}

/**
 * Describes the built addon by name, size and time, so that an addon built by other means is
 * noticed.
 */
function describeAddon() {
  const names = fs.readdirSync(root).filter((name) => /^kindling\..*\.node$/.test(name))
  return names.map((name) => {
    const { size, mtimeMs } = fs.statSync(path.join(root, name))
    return `${name} ${size} ${mtimeMs}`
  })
}

/**
 * The builds, in order. `sources` are what a build depends on; `describe` returns what it has made,
 * nothing if it never ran. tsc keeps the output of deleted sources, and npx needs the command line
 * to be executable: hence `before` and `after`.
 */
const BUILDS = [
  {
    name: 'Rust addon',
    note: 'a few minutes the first time',
    sources: ['crates', 'Cargo.toml', 'Cargo.lock', 'package-lock.json'],
    describe: describeAddon,
    script: 'build:native',
  },
  {
    name: 'TypeScript',
    note: 'a few seconds',
    sources: ['src', 'index.d.ts', 'tsconfig.json', 'scripts/build-page.js', 'package-lock.json'],
    describe: () => (fs.existsSync(path.join(root, 'dist', 'index.js')) ? ['dist'] : []),
    script: 'build:ts',
    before: () => fs.rmSync(path.join(root, 'dist'), { recursive: true, force: true }),
    after: () => fs.chmodSync(path.join(root, 'dist', 'cli', 'index.js'), 0o755),
  },
]

const stampOf = (script) => path.join(stamps, `${script.replace(':', '-')}.json`)
const stateOf = ({ sources, describe }) =>
  JSON.stringify({ sources: hashOf(sources), made: describe() })

/** Records that the output of a build is up to date. */
function markBuilt(script) {
  fs.mkdirSync(stamps, { recursive: true })
  fs.writeFileSync(stampOf(script), stateOf(BUILDS.find((step) => step.script === script)))
}

function build(step) {
  const { name, note, describe, script, before, after } = step
  const stamp = stampOf(script)
  const isBuilt = describe().length > 0 && fs.existsSync(stamp)
  if (isBuilt && fs.readFileSync(stamp, 'utf8') === stateOf(step)) {
    return `${name} up to date`
  }
  process.stdout.write(`building: ${name} (${note})\n`)
  before?.()
  run('npm', ['run', '--silent', script])
  after?.()
  markBuilt(script)
  return `${name} built`
}

/** Installs the npm packages if they are out of date, and returns what was done. */
function install() {
  if (isInstalled()) return 'packages up to date'
  process.stdout.write('installing: npm packages\n')
  // No audit here, which would ask the registry: scripts/checks/dependencies.js does it.
  run('npm', ['ci', '--include=dev', '--no-audit', '--no-fund'])
  return 'packages installed'
}

/** Installs and builds what is out of date, and prints what was done on one line. */
function setup() {
  const done = [install()]
  for (const step of BUILDS) done.push(build(step))
  process.stdout.write(`setup: ${done.join(', ')}\n`)
}

module.exports = { install, markBuilt, root, setup }
if (require.main === module) setup()
