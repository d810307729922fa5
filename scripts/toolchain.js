/**
 * Checks for Node.js, Rust and a C linker, and says in one line what to install. Keeps to old
 * syntax, so that an old Node.js can run it.
 */
const { execFileSync } = require('child_process')
const fs = require('fs')
const os = require('os')
const path = require('path')

const root = path.join(__dirname, '..')

/** Returns the first version number in a text as [major, minor], or null. */
function version(text) {
  const found = /(\d+)\.(\d+)/.exec(text)
  return found && [Number(found[1]), Number(found[2])]
}

function isOlder(have, need) {
  return have[0] < need[0] || (have[0] === need[0] && have[1] < need[1])
}

function versionOf(tool) {
  try {
    return version(
      execFileSync(tool, ['--version'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }),
    )
  } catch {
    return null
  }
}

/**
 * Returns what is missing and how to get it, or null. Adds rustup's folder to PATH if cargo is only
 * there.
 */
function missingTool() {
  const needNode = version(
    JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')).engines.node,
  )
  if (isOlder(version(process.version), needNode)) {
    return `Node.js ${process.version} is too old: install Node.js ${needNode.join('.')} or newer from https://nodejs.org`
  }
  if (!versionOf('cargo')) {
    process.env.PATH += path.delimiter + path.join(os.homedir(), '.cargo', 'bin')
  }
  const needRust = version(
    /rust-version = "(.*)"/.exec(fs.readFileSync(path.join(root, 'Cargo.toml'), 'utf8'))[1],
  )
  const cargo = versionOf('cargo')
  if (!cargo) {
    return 'Rust is missing (cargo is not on PATH): install it from https://rustup.rs'
  }
  if (isOlder(cargo, needRust)) {
    return `Rust ${cargo.join('.')} is too old: run "rustup update" to get ${needRust.join('.')} or newer`
  }
  if (process.platform === 'linux' && !versionOf('cc')) {
    return 'A C linker is missing (cc is not on PATH): install gcc or clang, on Debian and Ubuntu with "apt install build-essential"'
  }
  return null
}

/** Exits with a message if a tool is missing or too old. */
function checkToolchain() {
  const missing = missingTool()
  if (missing) {
    process.stderr.write(`${missing}\n`)
    process.exit(1)
  }
}

module.exports = { checkToolchain }
