import { ConfigError, encryptionSettings, loadConfig } from '@latchkey/runtime';

/** Prints JOBS_SEALING_PUBLIC_KEY for the token-service: the public half of the first key of JOBS_SEALING_KEY. */
try {
  const { JOBS_SEALING_KEY: keys } = loadConfig({ JOBS_SEALING_KEY: encryptionSettings.JOBS_SEALING_KEY });
  if (!keys?.[0])
    throw new ConfigError([
      'JOBS_SEALING_KEY is required: set it to the value that jobs uses, or set JOBS_SEALING_KEY_FILE',
    ]);
  console.log(keys[0].text);
} catch (error) {
  if (!(error instanceof ConfigError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
