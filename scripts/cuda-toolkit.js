/**
 * Finds the CUDA compiler: in $CUDA_HOME, or else fetched once with pip from PyPI into
 * target/cuda-toolkit, at the versions and hashes of scripts/cuda-toolkit.txt.
 */
const { spawnSync } = require('node:child_process')
const crypto = require('node:crypto')
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..')
const requirements = path.join(__dirname, 'cuda-toolkit.txt')
/** Drivers for CUDA 13.0 reject PTX from newer compilers. */
const RELEASE = '13.0'

/** A build cannot start; the message says in one line what is missing and what to do. */
class ToolkitError extends Error {}

/** Returns the folder of a CUDA 13.0 toolkit, and fetches one if need be. */
function cudaHome() {
  const home = process.env.CUDA_HOME ? path.resolve(process.env.CUDA_HOME) : fetched()
  const release = releaseOf(home)
  if (release === RELEASE) return home
  const found = release === null ? 'has no working bin/nvcc' : `is CUDA ${release}`
  throw new ToolkitError(
    `the build needs CUDA ${RELEASE}, but ${home} ${found}: ` +
      `set CUDA_HOME to a CUDA ${RELEASE} toolkit, or unset it to fetch one`,
  )
}

function releaseOf(home) {
  const { stdout } = spawnSync(path.join(home, 'bin', 'nvcc'), ['--version'], { encoding: 'utf8' })
  return /release (\d+\.\d+)/.exec(stdout ?? '')?.[1] ?? null
}

/**
 * Returns the folder of the fetched toolkit. A fetch that was interrupted left no stamp, and starts
 * again.
 */
function fetched() {
  const folder = path.join(root, 'target', 'cuda-toolkit')
  const home = path.join(folder, 'nvidia', 'cu13')
  const stamp = path.join(folder, 'fetched')
  const wanted = crypto.createHash('sha256').update(fs.readFileSync(requirements)).digest('hex')
  if (fs.existsSync(stamp) && fs.readFileSync(stamp, 'utf8') === wanted) return home
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new ToolkitError(
      `the CUDA build needs Linux on x86-64; this is ${process.platform} on ${process.arch}`,
    )
  }
  const pip = findPip()
  process.stdout.write(`fetching the CUDA ${RELEASE} compiler from PyPI (105 MB) into ${folder}\n`)
  fs.rmSync(folder, { recursive: true, force: true })
  const options = ['--quiet', '--no-deps', '--only-binary', ':all:', '--require-hashes']
  const args = [...pip.slice(1), 'install', ...options, '--target', folder, '-r', requirements]
  const { status } = spawnSync(pip[0], args, { stdio: 'inherit' })
  if (status !== 0) {
    throw new ToolkitError(
      `pip could not fetch the CUDA compiler (see above): check the network, ` +
        `or set CUDA_HOME to a CUDA ${RELEASE} toolkit`,
    )
  }
  for (const name of fs.readdirSync(path.join(home, 'bin')))
    if (fs.statSync(path.join(home, 'bin', name)).isFile())
      fs.chmodSync(path.join(home, 'bin', name), 0o755)
  fs.chmodSync(path.join(home, 'nvvm', 'bin', 'cicc'), 0o755)
  fs.writeFileSync(stamp, wanted)
  return home
}

/** Returns the command of the first pip that works. */
function findPip() {
  const found = [['python3', '-m', 'pip'], ['pip3'], ['pip']].find(
    ([command, ...args]) => spawnSync(command, [...args, '--version']).status === 0,
  )
  if (found) return found
  throw new ToolkitError(
    `pip, which fetches the CUDA compiler, is missing: install it, on Debian and Ubuntu with ` +
      `"apt install python3-pip", or set CUDA_HOME to a CUDA ${RELEASE} toolkit`,
  )
}

/** Returns the environment in which cargo builds the feature `cuda`. */
function cudaEnvironment() {
  return { ...process.env, CUDA_HOME: cudaHome() }
}

/** Prints the folder of the compiler, fetched if need be, or says what is missing. */
function main() {
  try {
    process.stdout.write(`${cudaHome()}\n`)
  } catch (error) {
    if (!(error instanceof ToolkitError)) throw error
    process.stderr.write(`${error.message}\n`)
    process.exitCode = 1
  }
}

module.exports = { cudaEnvironment, cudaHome, ToolkitError }
if (require.main === module) main()
