/**
 * Packs the npm packages into target/packages: `kindling` (JavaScript, types, command line) and a
 * package for each platform whose addon is in target/addons. Prints what each tarball holds, and
 * fails if one is larger than its bound. Build first: `npm run build` and
 * scripts/packages/build-addon.js.
 *
 * Usage: node scripts/packages/pack.js [--all]
 *
 * With --all, fails if the addon of any platform is missing.
 */
const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { addonName, addonPath, PLATFORMS, root } = require('./platforms')
const { PACKAGE_SCOPE } = require(path.join(root, 'dist', 'native', 'platform.js'))

const out = path.join(root, 'target', 'packages')
const MANIFEST = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'))
const MOST_BYTES = { main: 1e6, platform: 15e6 }
/** Keys of package.json that only a clone needs. */
const CLONE_KEYS = ['private', 'scripts', 'devDependencies', 'overrides', 'napi', 'ava']

const packageName = (platform) => `${PACKAGE_SCOPE}/${platform}`

/** Lays out the main package, tied to the platform packages by exact version. */
function stageMain(platforms) {
  const folder = path.join(out, 'main')
  fs.mkdirSync(folder, { recursive: true })
  for (const entry of [...MANIFEST.files, 'LICENSE', 'README.md']) {
    const source = path.join(root, entry)
    if (!fs.existsSync(source)) throw new Error(`${entry} does not exist; run npm run build first`)
    fs.cpSync(source, path.join(folder, entry), { recursive: true })
  }
  const manifest = { ...MANIFEST }
  for (const key of CLONE_KEYS) delete manifest[key]
  const tied = platforms.map((platform) => [packageName(platform), MANIFEST.version])
  manifest.optionalDependencies = Object.fromEntries(tied)
  fs.writeFileSync(path.join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`)
  return folder
}

/** Lays out the package of a platform. */
function stagePlatform(platform) {
  const folder = path.join(out, platform)
  fs.mkdirSync(folder, { recursive: true })
  const { version, license, engines, repository } = MANIFEST
  const manifest = {
    name: packageName(platform),
    version,
    description: `The native addon of kindling for ${platform}.`,
    license,
    repository,
    main: addonName(platform),
    files: [addonName(platform)],
    ...PLATFORMS[platform].npm,
    engines,
  }
  fs.writeFileSync(path.join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`)
  fs.writeFileSync(
    path.join(folder, 'README.md'),
    `# ${packageName(platform)}\n\nThe native addon of [kindling](https://www.npmjs.com/package/kindling) ` +
      `for ${platform}.\nInstall \`kindling\`, which depends on this package where it applies.\n`,
  )
  fs.copyFileSync(addonPath(platform), path.join(folder, addonName(platform)))
  fs.copyFileSync(path.join(root, 'LICENSE'), path.join(folder, 'LICENSE'))
  return folder
}

/** Packs the package in `folder`, prints its size and files, and checks the bound. */
function pack(folder, mostBytes) {
  const args = ['pack', '--json', '--pack-destination', out]
  const [packed] = JSON.parse(execFileSync('npm', args, { cwd: folder, encoding: 'utf8' }))
  const sources = packed.files.filter(
    ({ path: name }) => /\.(rs|cu|ts)$/.test(name) && !name.endsWith('.d.ts'),
  )
  process.stdout.write(
    `${packed.filename}: ${(packed.size / 1e6).toFixed(2)} MB, ${packed.files.length} files\n`,
  )
  if (sources.length > 0) throw new Error(`${packed.name} holds sources: ${sources[0].path}`)
  if (packed.size > mostBytes) throw new Error(`${packed.name} is larger than ${mostBytes} bytes`)
  return path.join(out, packed.filename)
}

/** Packs all packages; returns the tarballs, that of the main package last. */
function packAll({ demandAll }) {
  const platforms = Object.keys(PLATFORMS).filter((name) => fs.existsSync(addonPath(name)))
  const missing = Object.keys(PLATFORMS).filter((name) => !platforms.includes(name))
  if (demandAll && missing.length > 0) throw new Error(`no addon for ${missing.join(', ')}`)
  fs.rmSync(out, { recursive: true, force: true })
  const addons = platforms.map((name) => pack(stagePlatform(name), MOST_BYTES.platform))
  return [...addons, pack(stageMain(platforms), MOST_BYTES.main)]
}

module.exports = { packAll, packageName }
if (require.main === module) packAll({ demandAll: process.argv.includes('--all') })
