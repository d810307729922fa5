/**
 * Finds the CUDA compiler: in $CUDA_HOME, or else fetched once with pip from PyPI into
 * target/cuda-toolkit, at the versions and hashes of scripts/cuda-toolkit.txt.
 */
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { fetchWheels, FetchError } = require('./wheels')

const root = path.join(__dirname, '..')
/** Drivers for CUDA 13.0 reject PTX from newer compilers. */
const RELEASE = '13.0'

/** Returns the folder of a CUDA 13.0 toolkit, and fetches one if need be. */
function cudaHome() {
  const home = process.env.CUDA_HOME ? path.resolve(process.env.CUDA_HOME) : fetched()
  const release = releaseOf(home)
  if (release === RELEASE) return home
  const found = release === null ? 'has no working bin/nvcc' : `is CUDA ${release}`
  throw new FetchError(
    `the build needs CUDA ${RELEASE}, but ${home} ${found}: ` +
      `set CUDA_HOME to a CUDA ${RELEASE} toolkit, or unset it to fetch one`,
  )
}

function releaseOf(home) {
  const { stdout } = spawnSync(path.join(home, 'bin', 'nvcc'), ['--version'], { encoding: 'utf8' })
  return /release (\d+\.\d+)/.exec(stdout ?? '')?.[1] ?? null
}

/** Returns the folder of the fetched toolkit. */
function fetched() {
  const folder = fetchWheels({
    folder: path.join(root, 'target', 'cuda-toolkit'),
    requirements: path.join(__dirname, 'cuda-toolkit.txt'),
    what: `the CUDA ${RELEASE} compiler (105 MB)`,
    otherwise: `or set CUDA_HOME to a CUDA ${RELEASE} toolkit`,
    prepare: makeExecutable,
  })
  return homeIn(folder)
}

const homeIn = (folder) => path.join(folder, 'nvidia', 'cu13')

function makeExecutable(folder) {
  const home = homeIn(folder)
  for (const name of fs.readdirSync(path.join(home, 'bin')))
    if (fs.statSync(path.join(home, 'bin', name)).isFile())
      fs.chmodSync(path.join(home, 'bin', name), 0o755)
  fs.chmodSync(path.join(home, 'nvvm', 'bin', 'cicc'), 0o755)
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
    if (!(error instanceof FetchError)) throw error
    process.stderr.write(`${error.message}\n`)
    process.exitCode = 1
  }
}

module.exports = { cudaEnvironment, cudaHome }
if (require.main === module) main()
