/**
 * A registry on this machine for the tests of the packages: verdaccio, which serves the packages
 * published to it and forwards all others to npm's registry.
 */
const { execFileSync, spawn } = require('node:child_process')
const fs = require('node:fs')
const net = require('node:net')
const path = require('node:path')
const { installTools } = require('../tools')
const { root } = require('./platforms')

const TOOLS = path.join(root, 'target', 'package-tools')

/** Installs the programs of scripts/packages/tools, once; returns the folder of a package. */
function tool(name) {
  // One binary is for another processor, which npm installs only with --force.
  installTools(path.join(__dirname, 'tools'), TOOLS, '--force')
  return path.join(TOOLS, 'node_modules', name)
}

/** Returns a port of the loopback interface that is free now. */
function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer().once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
}

function writeConfig(folder, scope) {
  const upstream = execFileSync('npm', ['config', 'get', 'registry'], { encoding: 'utf8' }).trim()
  const local = { access: '$all', publish: '$all' }
  const config = {
    storage: path.join(folder, 'storage'),
    auth: { htpasswd: { file: path.join(folder, 'htpasswd') } },
    uplinks: { npm: { url: upstream, timeout: '60s' } },
    packages: { kindling: local, [`${scope}/*`]: local, '**': { access: '$all', proxy: 'npm' } },
    log: { type: 'file', path: path.join(folder, 'log'), level: 'warn' },
    max_body_size: '100mb',
  }
  const file = path.join(folder, 'config.yaml')
  // JSON is YAML.
  fs.writeFileSync(file, JSON.stringify(config))
  return file
}

/** Starts the registry and waits until it answers. Returns its address and how to stop it. */
async function startRegistry(folder, scope) {
  const port = await freePort()
  const url = `http://127.0.0.1:${port}/`
  const program = path.join(tool('verdaccio'), 'bin', 'verdaccio')
  const args = [program, '--config', writeConfig(folder, scope), '--listen', `127.0.0.1:${port}`]
  // verdaccio needs Node.js 22.
  const child = spawn(path.join(tool('node22'), 'bin', 'node'), args, { stdio: 'ignore' })
  for (let tries = 0; tries < 300; tries++) {
    const answers = await fetch(`${url}-/ping`).then(
      (response) => response.ok,
      () => false,
    )
    if (answers) return { url, stop: () => child.kill() }
    await new Promise((resolve) => {
      setTimeout(resolve, 100)
    })
  }
  child.kill()
  throw new Error('the registry did not start')
}

/** Publishes a tarball. The registry accepts any token. */
function publish(url, tarball) {
  const key = `--${url.replace('http:', '')}:_authToken=any`
  execFileSync('npm', [
    'publish',
    '--silent',
    '--access',
    'public',
    '--registry',
    url,
    key,
    tarball,
  ])
}

module.exports = { publish, startRegistry, tool }
