/**
 * The CUDA compiler of a build: the one of $CUDA_HOME, or one that pip fetches from PyPI at the
 * versions and hashes of scripts/cuda-toolkit.txt, once, into target/cuda-toolkit.
 */
const { execFileSync, spawnSync } = require('node:child_process')
const crypto = require('node:crypto')
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..')
const requirements = path.join(__dirname, 'cuda-toolkit.txt')
/** PTX of a newer compiler is refused by drivers of CUDA 13.0. */
const RELEASE = '13.0'
/**
 * Libraries that the linker is asked for and that are opened at run time: empty here, and dropped
 * by it.
 */
const STAND_INS = ['cuda', 'nvrtc', 'curand', 'cublas', 'cublasLt']

/** What keeps a build from beginning: one line of what is missing and what to do. */
class ToolkitError extends Error {}

/** The folder of a toolkit of the right release, fetched where there is none. */
function cudaHome() {
  const home = process.env.CUDA_HOME ? path.resolve(process.env.CUDA_HOME) : fetched()
  const release = releaseOf(home)
  if (release === RELEASE) return home
  const found = release === null ? 'has no bin/nvcc that runs' : `is CUDA ${release}`
  throw new ToolkitError(
    `CUDA ${RELEASE} is needed, and ${home} ${found}: point CUDA_HOME at a toolkit of ${RELEASE}, or unset it to have one fetched`,
  )
}

function releaseOf(home) {
  const { stdout } = spawnSync(path.join(home, 'bin', 'nvcc'), ['--version'], { encoding: 'utf8' })
  return /release (\d+\.\d+)/.exec(stdout ?? '')?.[1] ?? null
}

/** The folder of the fetched toolkit; one that was cut off has no stamp and is fetched again. */
function fetched() {
  const folder = path.join(root, 'target', 'cuda-toolkit')
  const home = path.join(folder, 'nvidia', 'cu13')
  const stamp = path.join(folder, 'fetched')
  const wanted = crypto.createHash('sha256').update(fs.readFileSync(requirements)).digest('hex')
  if (fs.existsSync(stamp) && fs.readFileSync(stamp, 'utf8') === wanted) return home
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new ToolkitError(
      `the CUDA build is for Linux on x86-64, and this is ${process.platform} on ${process.arch}`,
    )
  }
  const pip = findPip()
  process.stdout.write(`fetching CUDA ${RELEASE}'s compiler from PyPI (105 MB) into ${folder}\n`)
  fs.rmSync(folder, { recursive: true, force: true })
  const options = ['--quiet', '--no-deps', '--only-binary', ':all:', '--require-hashes']
  const args = [...pip.slice(1), 'install', ...options, '--target', folder, '-r', requirements]
  const { status } = spawnSync(pip[0], args, { stdio: 'inherit' })
  if (status !== 0) {
    throw new ToolkitError(
      `pip could not fetch CUDA's compiler (above): check the network, or point CUDA_HOME at a toolkit of CUDA ${RELEASE}`,
    )
  }
  for (const name of fs.readdirSync(path.join(home, 'bin')))
    if (fs.statSync(path.join(home, 'bin', name)).isFile())
      fs.chmodSync(path.join(home, 'bin', name), 0o755)
  fs.chmodSync(path.join(home, 'nvvm', 'bin', 'cicc'), 0o755)
  fs.writeFileSync(stamp, wanted)
  return home
}

/** The first pip that runs, as a command. */
function findPip() {
  const found = [['python3', '-m', 'pip'], ['pip3'], ['pip']].find(
    ([command, ...args]) => spawnSync(command, [...args, '--version']).status === 0,
  )
  if (found) return found
  throw new ToolkitError(
    `pip is missing, which fetches CUDA's compiler: install it, on Debian and Ubuntu "apt install python3-pip", or point CUDA_HOME at a toolkit of CUDA ${RELEASE}`,
  )
}

/**
 * What the linker finds in place of libraries that are opened at run time, in a folder that looks
 * like a toolkit's.
 */
function layOut(home, folder) {
  fs.rmSync(folder, { recursive: true, force: true })
  const libraries = path.join(folder, 'lib64')
  const stubs = path.join(libraries, 'stubs')
  fs.mkdirSync(stubs, { recursive: true })
  for (const name of ['bin', 'include', 'nvvm']) {
    fs.symlinkSync(path.join(home, name), path.join(folder, name))
  }
  fs.symlinkSync('lib64', path.join(folder, 'lib'))
  const static_ = ['lib64', 'lib']
    .map((name) => path.join(home, name))
    .find((candidate) => fs.existsSync(path.join(candidate, 'libcudart_static.a')))
  if (!static_)
    throw new ToolkitError(
      `${home} has no libcudart_static.a: install CUDA ${RELEASE}'s runtime, or unset CUDA_HOME`,
    )
  for (const name of ['libcudart_static.a', 'libcudadevrt.a']) {
    fs.symlinkSync(path.join(static_, name), path.join(libraries, name))
  }
  for (const name of STAND_INS) {
    execFileSync('cc', ['-shared', '-x', 'c', '-o', path.join(stubs, `lib${name}.so`), '-'], {
      input: '',
    })
  }
  // candle-kernels asks for -lcudart: the static one.
  fs.writeFileSync(
    path.join(stubs, 'libcudart.so'),
    `INPUT(${path.join(libraries, 'libcudart_static.a')} -ldl -lrt -lpthread)\n`,
  )
  return folder
}

/** The environment of a cargo that builds the feature `cuda`. */
function cudaEnvironment() {
  const home = layOut(cudaHome(), path.join(root, 'target', 'cuda-home'))
  return {
    ...process.env,
    CUDA_HOME: home,
    CUDA_PATH: home,
    PATH: `${path.join(home, 'bin')}${path.delimiter}${process.env.PATH}`,
    NVCC: path.join(__dirname, 'nvcc-without-moe.sh'),
    CUDA_COMPUTE_CAP: '80',
    CUDARC_CUDA_VERSION: '13000',
    // Libraries are opened at run time. Only with --target does the flag stay away from build
    // scripts, whose cudarc refuses it.
    CARGO_ENCODED_RUSTFLAGS: ['--cfg', 'feature="dynamic-loading"'].join('\x1f'),
  }
}

/**
 * `node scripts/cuda-toolkit.js` fetches the compiler and names its folder, or says what is
 * missing.
 */
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
