/**
 * Tests the packages as a user meets them: publishes them to a registry on this machine, installs
 * `kindling` from it into empty projects on a PATH without compilers, and runs it from CommonJS, ESM,
 * TypeScript, worker threads and the command line, on three versions of Node.js, Bun and Deno; then
 * breaks the installation in the ways that users meet. Prints a line per check and ends with
 * `N passed, N failed`. Needs the built TypeScript and target/addons (see pack.js).
 *
 * Usage: node scripts/packages/install-test.js [--node 20|22|24 ...]
 */
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { brokenInstalls } = require('./broken-installs')
const { FILES } = require('./consumers/program')
const { packAll } = require('./pack')
const { root } = require('./platforms')
const { publish, startRegistry, tool } = require('./registry')
const { PACKAGE_SCOPE } = require(path.join(root, 'dist', 'native', 'platform.js'))

const NODES = ['20', '22', '24']
const HOST = { bun: ['@oven/bun-linux-x64', 'bin/bun'], deno: ['@deno/linux-x64-glibc', 'deno'] }

/** A folder with nothing but Node.js, npm and a shell, to be the whole PATH. */
function emptyPath(folder, node) {
  const bin = path.join(folder, 'bin')
  fs.mkdirSync(bin, { recursive: true })
  // A copy: a check hides the folder that this clone may lie in.
  fs.copyFileSync(node, path.join(bin, 'node'))
  fs.symlinkSync('/bin/sh', path.join(bin, 'sh'))
  const npm = spawnSync('npm', ['root', '--global'], { encoding: 'utf8' }).stdout.trim()
  for (const name of ['npm', 'npx']) {
    const script = path.join(npm, 'npm', 'bin', `${name}-cli.js`)
    const file = path.join(bin, name)
    fs.writeFileSync(file, `#!/bin/sh\nexec node "${script}" "$@"\n`, { mode: 0o755 })
  }
  return bin
}

/** An empty project with a PATH, a HOME and an npm configuration of its own. */
class Project {
  constructor(folder, node, registry) {
    this.folder = path.join(folder, 'project')
    this.env = {
      PATH: emptyPath(folder, node),
      HOME: path.join(folder, 'home'),
      npm_config_registry: registry,
      npm_config_audit: 'false',
      npm_config_fund: 'false',
      npm_config_update_notifier: 'false',
    }
    fs.mkdirSync(this.folder, { recursive: true })
    fs.mkdirSync(this.env.HOME)
    for (const [name, text] of Object.entries(FILES)) this.write(name, text)
    this.write('package.json', '{ "name": "project", "private": true }\n')
  }

  write(name, text) {
    fs.writeFileSync(path.join(this.folder, name), text)
  }

  /** Runs a command and returns its result; `env` and `uid` override those of the project. */
  try(command, args, { env = {}, ...options } = {}) {
    const at = {
      cwd: this.folder,
      env: { ...this.env, ...env },
      encoding: 'utf8',
      timeout: 300_000,
    }
    return spawnSync(command, args, { ...at, ...options })
  }

  /** Runs a command that must succeed and returns what it printed. */
  run(command, ...args) {
    const { status, stdout, stderr, error } = this.try(command, args)
    if (error) throw error
    if (status !== 0) throw new Error(`${command} ${args.join(' ')} failed:\n${stdout}${stderr}`)
    return stdout
  }
}

/** Throws unless a program ran to its end. */
function expectTrained(printed) {
  if (!printed.includes('trained and generated')) throw new Error(`it printed: ${printed}`)
}

/** The checks of a project on one version of Node.js. */
function checksOf(project) {
  const typeScript = (resolution, built) => {
    project.run('npx', '--no-install', 'tsc', '-p', `tsconfig.${resolution}.json`)
    expectTrained(project.run('node', `built-${resolution}/${built}`))
  }
  return {
    'installs without a compiler': () => {
      const began = Date.now()
      project.run('npm', 'install', 'kindling')
      process.stdout.write(`   npm install kindling: ${(Date.now() - began) / 1000} s\n`)
      if (project.try('sh', ['-c', 'cc --version || cargo --version']).status === 0)
        throw new Error('a compiler was on PATH')
    },
    'trains from CommonJS': () => expectTrained(project.run('node', 'program.cjs')),
    'trains from an ES module': () => expectTrained(project.run('node', 'program.mjs')),
    'compiles from TypeScript with node16': () => {
      project.run('npm', 'install', '--save-dev', 'typescript@5.9')
      typeScript('node16', 'program.cjs')
    },
    'compiles from TypeScript with bundler': () => typeScript('bundler', 'program.mjs'),
    'trains in worker threads, one of them terminated': () =>
      expectTrained(project.run('node', 'workers.cjs')),
    'runs npx kindling quickstart': () => {
      project.run('npx', '--no-install', 'kindling', 'quickstart', '--seconds', '5', '--dir', 'q')
    },
  }
}

/** The checks of the other hosts, in a project that is installed. */
function hostChecks(project) {
  const host = (name, ...args) => {
    const [packageName, file] = HOST[name]
    expectTrained(project.run(path.join(tool(packageName), file), ...args, 'program.mjs'))
  }
  return {
    'trains under Bun': () => host('bun', 'run'),
    'trains under Deno': () => host('deno', 'run', '--allow-all'),
  }
}

/** The linters of packages, over the tarball of the main package. */
function linterChecks(tarball) {
  const lint = (name, file, ...args) => {
    const command = [path.join(tool(name), file), ...args, tarball]
    const { status, stdout, stderr } = spawnSync(process.execPath, command, { encoding: 'utf8' })
    if (status !== 0) throw new Error(stdout + stderr)
  }
  return {
    'publint finds nothing': () => lint('publint', 'src/cli.js', '--strict'),
    'arethetypeswrong finds nothing': () => lint('@arethetypeswrong/cli', 'dist/index.js'),
  }
}

/** Runs named checks; returns how many passed and failed. */
async function runChecks(title, checks, counts) {
  for (const [claim, check] of Object.entries(checks)) {
    try {
      const skipped = await check()
      const isSkipped = typeof skipped === 'string'
      counts[isSkipped ? 'skipped' : 'passed']++
      process.stdout.write(`${isSkipped ? `skipped (${skipped})` : 'ok'} ${title}: ${claim}\n`)
    } catch (error) {
      counts.failed++
      process.stdout.write(`not ok ${title}: ${claim}\n${error.stack}\n`)
    }
  }
}

async function main() {
  const at = process.argv.indexOf('--node')
  const nodes = at > 0 ? process.argv.slice(at + 1) : NODES
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'kindling-install-'))
  fs.chmodSync(folder, 0o755)
  const tarballs = packAll({ demandAll: false })
  const registry = await startRegistry(folder, PACKAGE_SCOPE)
  const counts = { passed: 0, failed: 0, skipped: 0 }
  try {
    for (const tarball of tarballs) publish(registry.url, tarball)
    await runChecks('package', linterChecks(tarballs.at(-1)), counts)
    let project
    for (const version of nodes) {
      const node = path.join(tool(`node${version}`), 'bin', 'node')
      project = new Project(path.join(folder, version), node, registry.url)
      await runChecks(`Node.js ${version}`, checksOf(project), counts)
    }
    await runChecks('host', hostChecks(project), counts)
    await runChecks('broken', brokenInstalls(project, PACKAGE_SCOPE), counts)
  } finally {
    registry.stop()
    fs.rmSync(folder, { recursive: true, force: true })
  }
  const { passed, failed, skipped } = counts
  process.stdout.write(
    `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}\n`,
  )
  process.exitCode = failed > 0 ? 1 : 0
}

void main()
