/**
 * Loads the addon: the file that $NAPI_RS_NATIVE_LIBRARY_PATH names, else the one built in a clone,
 * else that of the installed platform package.
 */
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { KindlingError } from '../errors'
import { explainFailure } from './explain'
import { PACKAGE_SCOPE, platformName, thisMachine, type Machine } from './platform'

/**
 * Loads the addon of the package in folder `root`.
 *
 * @throws KindlingError `ERR_ADDON_NOT_INSTALLED` if there is none for `machine`,
 * `ERR_ADDON_NOT_LOADED` if the system refuses to load it.
 */
export function loadAddon(root: string, machine: Machine = thisMachine()): unknown {
  const named = process.env['NAPI_RS_NATIVE_LIBRARY_PATH']
  if (named !== undefined && named !== '') return open(named, root)
  const platform = platformName(machine)
  if (platform === null) throw unsupported(machine)
  const built = join(root, `kindling.${platform}.node`)
  if (existsSync(built)) return open(built, root)
  return open(installedAddon(root, platform), root)
}

function open(file: string, root: string): unknown {
  try {
    return createRequire(join(root, 'package.json'))(file)
  } catch (error) {
    throw explainFailure(file, error)
  }
}

/** Returns the path of the addon in the installed package for `platform`. */
function installedAddon(root: string, platform: string): string {
  const name = `${PACKAGE_SCOPE}/${platform}`
  const { version } = readManifest(join(root, 'package.json'))
  const { resolve } = createRequire(join(root, 'package.json'))
  let manifest: string
  try {
    manifest = resolve(`${name}/package.json`)
  } catch (error) {
    throw notInstalled(`${name} ${version}`, otherPlatforms(resolve.paths(name) ?? []), error)
  }
  const found = readManifest(manifest).version
  if (found !== version) {
    throw new KindlingError(
      'ERR_ADDON_NOT_INSTALLED',
      `kindling ${version} needs ${name} ${version}, but ${found} is installed; ` +
        `delete node_modules and package-lock.json and run npm install`,
    )
  }
  return join(manifest, '..', `kindling.${platform}.node`)
}

function readManifest(file: string): { version: string } {
  return JSON.parse(readFileSync(file, 'utf8')) as { version: string }
}

/** Lists the platform packages in the folders where Node looks for packages. */
function otherPlatforms(folders: readonly string[]): string[] {
  return folders.flatMap((folder) => {
    try {
      return readdirSync(join(folder, PACKAGE_SCOPE)).map((name) => `${PACKAGE_SCOPE}/${name}`)
    } catch {
      return []
    }
  })
}

function notInstalled(wanted: string, others: readonly string[], cause: unknown): KindlingError {
  const name = wanted.slice(0, wanted.indexOf(' '))
  const advice =
    others.length > 0
      ? `node_modules has ${others.join(', ')}, installed for another platform; delete ` +
        `node_modules and package-lock.json and run npm install here, or for a target such as ` +
        `AWS Lambda: npm install --os=linux --cpu=x64 --libc=glibc`
      : `npm skips it with --omit=optional or --no-optional, or with a lock file from another ` +
        `platform; run npm install ${wanted.replace(' ', '@')}`
  return new KindlingError(
    'ERR_ADDON_NOT_INSTALLED',
    `the package ${name}, with the addon for this platform, is not installed; ${advice}`,
    { cause },
  )
}

function unsupported({ platform, arch, musl }: Machine): KindlingError {
  return new KindlingError(
    'ERR_ADDON_NOT_INSTALLED',
    `there is no addon for ${platform} on ${arch}${musl ? ' with musl' : ''}; ` +
      `clone the repository and run npm run build, which needs Rust`,
  )
}
