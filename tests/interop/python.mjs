// Python environments of the run: one for each list of requirements, kept as long as the list is the same.

import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { here, inTurn, must, out, said } from './processes.mjs';

const requirements = (name) => `${here}servers/python/${name}.txt`;
const folder = (name) => `${out}/py/${name}`;

/** The interpreter of an environment. */
export const python = (name) => `${folder(name)}/bin/python`;

/** The pinned version of a package in an environment. */
export function pinned(name, distribution) {
  const lines = readFileSync(requirements(name), 'utf8').split('\n');
  const line = lines.find((line) => line.startsWith(`${distribution}==`));
  if (!line) throw new Error(`${name}.txt does not pin ${distribution}`);
  return line.split('==')[1];
}

/** Makes the environments that are not there yet, or not as they should be. */
export async function environments(names) {
  const interpreter = await said('python3', ['--version']);
  if (Number(/^Python 3\.(\d+)/.exec(interpreter)?.[1]) < 11)
    throw new Error(`the servers need Python 3.11, not ${interpreter}`);
  await inTurn(
    2,
    names.map((name) => async () => {
      const wanted = `${interpreter}\n${readFileSync(requirements(name), 'utf8')}`;
      const stamp = `${folder(name)}/installed`;
      if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return;
      rmSync(folder(name), { recursive: true, force: true });
      await must('python3', ['-m', 'venv', folder(name)]);
      // The lists are complete, so there is nothing to resolve; and most modules are never imported.
      const options = ['--quiet', '--disable-pip-version-check', '--no-deps', '--no-compile'];
      const pip = ['-m', 'pip', 'install', ...options, '-r', requirements(name)];
      await must(python(name), pip);
      writeFileSync(stamp, wanted);
    }),
  );
}
