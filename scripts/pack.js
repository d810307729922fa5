/**
 * Packs the npm packages into target/packages: `kindling` (JavaScript, types, assets) and the addon
 * for this platform. Run `npm run build:native:dist` and `npm run build:ts` first. Usage: node
 * scripts/pack.js
 */
const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..')
const out = path.join(root, 'target', 'packages')
const PLATFORM = 'linux-x64-gnu'

/**
 * Copies what is published to a folder, with a package.json that depends on the platform packages.
 */
function stageMain() {
  const manifest = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'))
  const folder = path.join(out, manifest.name)
  fs.mkdirSync(folder, { recursive: true })
  for (const entry of [...manifest.files, 'LICENSE', 'README.md']) {
    const source = path.join(root, entry)
    if (!fs.existsSync(source)) throw new Error(`${entry} does not exist; build first`)
    fs.cpSync(source, path.join(folder, entry), { recursive: true })
  }
  for (const key of ['scripts', 'devDependencies', 'overrides', 'napi', 'ava']) delete manifest[key]
  manifest.optionalDependencies = { [`${manifest.name}-${PLATFORM}`]: manifest.version }
  fs.writeFileSync(path.join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`)
  return folder
}

function stagePlatform() {
  const folder = path.join(out, PLATFORM)
  fs.cpSync(path.join(root, 'npm', PLATFORM), folder, { recursive: true })
  const addon = `kindling.${PLATFORM}.node`
  fs.copyFileSync(path.join(root, addon), path.join(folder, addon))
  fs.copyFileSync(path.join(root, 'LICENSE'), path.join(folder, 'LICENSE'))
  return folder
}

/** Packs the package in `folder` and returns the path of the tarball. */
function pack(folder) {
  const printed = execFileSync('npm', ['pack', '--json', '--pack-destination', out], {
    cwd: folder,
    encoding: 'utf8',
  })
  return path.join(out, JSON.parse(printed)[0].filename)
}

fs.rmSync(out, { recursive: true, force: true })
const tarballs = [stageMain(), stagePlatform()].map(pack)
for (const tarball of tarballs) {
  process.stdout.write(`${tarball} ${(fs.statSync(tarball).size / 2 ** 20).toFixed(1)} MiB\n`)
}
