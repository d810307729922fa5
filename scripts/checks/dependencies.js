/**
 * Checks the dependencies: known vulnerabilities of the npm packages and of the crates, licences,
 * and sources (deny.toml). Checks that need a missing service or tool are skipped, and reported as
 * skipped.
 *
 * Usage: node scripts/checks/dependencies.js
 */
const { root, claim, skip, campaign } = require('../campaigns/claims')
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

const REGISTRY = 'https://registry.npmjs.org/'

function run(command, ...args) {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, CARGO_TERM_COLOR: 'never' },
  })
  return { status, output: `${stdout}${stderr}`.trim(), isMissing: error !== undefined }
}

function npmAudit() {
  const what = 'no npm package has a known vulnerability'
  const { status, output } = run('npm', 'audit')
  if (/audit endpoint returned an error|ENOTFOUND|ECONN|ETIMEDOUT/.test(output))
    skip(what, 'the registry does not answer npm audit')
  else claim(what, status === 0, status === 0 ? undefined : output)
}

/** Returns the npm lock files of this repository. */
function lockFiles() {
  const names = ['package-lock.json', '*/package-lock.json']
  const { output } = run('git', '-c', 'safe.directory=*', 'ls-files', ...names)
  return output.split('\n')
}

/**
 * Checks that the packages of a lock file come from the registry, have a hash, and run no script
 * when installed. Outside the root, packages may have scripts: scripts/tools.js does not run them.
 */
function npmLock(file) {
  const { packages } = JSON.parse(fs.readFileSync(path.join(root, file), 'utf8'))
  const installed = Object.entries(packages).filter(([name]) => name !== '')
  const skipsScripts = file !== 'package-lock.json'
  const wrong = installed.filter(
    ([, { resolved, integrity, hasInstallScript, link }]) =>
      !link &&
      ((hasInstallScript && !skipsScripts) ||
        !integrity?.startsWith('sha512-') ||
        !(resolved ?? REGISTRY).startsWith(REGISTRY)),
  )
  claim(
    `${file}: packages come from the registry, with a hash, and run nothing when installed`,
    wrong.length === 0,
    wrong.map(([name]) => name).join(', ') || `${installed.length} packages`,
  )
}

function cargoDeny() {
  const kinds = ['licenses', 'sources', 'bans']
  const what = 'licences and sources of the crates are those of deny.toml'
  const advisories = 'no crate has a known vulnerability or was withdrawn'
  const deny = (...args) => run('cargo', 'deny', '--locked', 'check', ...args)
  if (run('cargo', 'deny', '--version').status !== 0) {
    for (const claimed of [what, advisories]) skip(claimed, 'cargo install cargo-deny --locked')
    return
  }
  const allowed = deny(...kinds)
  claim(what, allowed.status === 0, allowed.status === 0 ? undefined : allowed.output)
  const found = deny('advisories')
  if (/failed to fetch advisory database/.test(found.output))
    skip(advisories, 'the database of advisories cannot be reached')
  else claim(advisories, found.status === 0, found.status === 0 ? undefined : found.output)
}

campaign(() => {
  lockFiles().forEach(npmLock)
  npmAudit()
  cargoDeny()
})
