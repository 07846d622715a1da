// Reads releases with tuf-js, TUF's client in JavaScript. Arguments: URL, folder of its state, how often.
import { mkdirSync } from 'node:fs';
import { Updater } from 'tuf-js';

const [url, folder, turns] = process.argv.slice(2);
mkdirSync(`${folder}/targets`, { recursive: true });
for (let turn = 0; turn < Number(turns); turn++) {
  let answer;
  try {
    const config = { fetchRetry: false, fetchRetries: 0, fetchTimeout: 5000 };
    const updater = new Updater({
      metadataDir: folder, metadataBaseUrl: url, targetDir: `${folder}/targets`, targetBaseUrl: `${url}/targets`, config,
    });
    await updater.refresh();
    const published = updater.trustedSet.targets.signed.unrecognizedFields['x-edgekit'];
    const release = published.releases[published.channels.stable.release];
    for (const target of Object.values(release.kits['python-litert'])) {
      await updater.downloadTarget(await updater.getTargetInfo(target), `${folder}/file`);
    }
    answer = ['ok', ''];
  } catch (error) {
    answer = ['refused', String(error.message).split('\n')[0]];
  }
  console.log(answer.join('\t'));
}
