/**
 * Installs and builds what is missing or out of date: the npm packages, the Rust addon, the TypeScript. What is
 * current is told by content, not by time: a stamp in .kindling/ holds the hash of what a build was made from.
 * Usage: node scripts/setup.js (npm run build); scripts/start.js and scripts/test.js call it first.
 */
require('./toolchain').checkToolchain()

const { spawnSync } = require('node:child_process')
const crypto = require('node:crypto')
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..')
const stamps = path.join(root, '.kindling')

/** Every file under `entries`, in a fixed order. */
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

/** Whether node_modules holds every package of package-lock.json that this platform needs, at its version. */
function isInstalled() {
  const installed = path.join(root, 'node_modules', '.package-lock.json')
  if (!fs.existsSync(installed)) return false
  const have = JSON.parse(fs.readFileSync(installed, 'utf8')).packages
  const need = JSON.parse(fs.readFileSync(path.join(root, 'package-lock.json'), 'utf8')).packages
  return Object.entries(need).every(
    ([name, { version, optional }]) => name === '' || optional || have[name]?.version === version,
  )
}

/** The addon as it stands, as name, size and time: a build by other means makes the stamp void. */
function addon() {
  const names = fs.readdirSync(root).filter((name) => /^kindling\..*\.node$/.test(name))
  return names.map((name) => {
    const { size, mtimeMs } = fs.statSync(path.join(root, name))
    return `${name} ${size} ${mtimeMs}`
  })
}

/**
 * The steps in order. `from` is what a build depends on, `made` describes what it made (empty: nothing there).
 * tsc leaves files whose source is gone and marks no file executable, which npx needs; hence before and after.
 */
const BUILDS = [
  {
    name: 'Rust addon',
    note: 'the first time this takes some minutes',
    from: ['crates', 'Cargo.toml', 'Cargo.lock', 'package-lock.json'],
    made: addon,
    script: 'build:native',
  },
  {
    name: 'TypeScript',
    note: 'seconds',
    from: ['src', 'index.d.ts', 'tsconfig.json', 'package-lock.json'],
    made: () => (fs.existsSync(path.join(root, 'dist', 'index.js')) ? ['dist'] : []),
    script: 'build:ts',
    before: () => fs.rmSync(path.join(root, 'dist'), { recursive: true, force: true }),
    after: () => fs.chmodSync(path.join(root, 'dist', 'cli', 'index.js'), 0o755),
  },
]

const stampOf = (script) => path.join(stamps, `${script.replace(':', '-')}.json`)
const stateOf = ({ from, made }) => JSON.stringify({ from: hashOf(from), made: made() })

/** Takes what stands for what a build's script would make. */
function markBuilt(script) {
  fs.mkdirSync(stamps, { recursive: true })
  fs.writeFileSync(stampOf(script), stateOf(BUILDS.find((step) => step.script === script)))
}

function build(step) {
  const { name, note, made, script, before, after } = step
  const stamp = stampOf(script)
  const current = () => stateOf(step)
  if (made().length > 0 && fs.existsSync(stamp) && fs.readFileSync(stamp, 'utf8') === current()) {
    return `${name} is current`
  }
  process.stdout.write(`building: ${name} (${note})\n`)
  before?.()
  run('npm', ['run', '--silent', script])
  after?.()
  markBuilt(script)
  return `${name} built`
}

/** Brings the npm packages up to date and says what was done. */
function install() {
  if (isInstalled()) return 'packages are current'
  process.stdout.write('installing: npm packages\n')
  run('npm', ['ci', '--include=dev', '--no-audit', '--no-fund'])
  return 'packages installed'
}

/** Brings everything up to date and says in one line what was done. */
function setup() {
  const done = [install()]
  for (const step of BUILDS) done.push(build(step))
  process.stdout.write(`setup: ${done.join(', ')}\n`)
}

module.exports = { install, markBuilt, root, setup }
if (require.main === module) setup()
