// Certificates for TLS between the services: X.509 version 3, ECDSA on P-256 with SHA-256. Node can read certificates but not
// make them, and the image has no openssl.
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes, sign } from 'node:crypto';

const YEAR_MS = 365 * 86_400_000;

/** One value of DER: tag, length, contents. */
function der(tag, ...parts) {
  const body = Buffer.concat(parts);
  const { length } = body;
  const size = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 255];
  return Buffer.concat([Buffer.from([tag, ...size]), body]);
}
const sequence = (...parts) => der(0x30, ...parts);
const oid = (hex) => der(0x06, Buffer.from(hex, 'hex'));
const TRUE = der(0x01, Buffer.from([0xff]));
const ECDSA_SHA256 = sequence(oid('2a8648ce3d040302'));
const name = (text) => sequence(der(0x31, sequence(oid('550403'), der(0x0c, Buffer.from(text)))));
/** UTCTime up to 2049, GeneralizedTime after. */
function time(ms) {
  const digits = new Date(ms).toISOString().replace(/[-:T]|\.\d+/g, '');
  return digits < '2050' ? der(0x17, Buffer.from(digits.slice(2))) : der(0x18, Buffer.from(digits));
}
const extension = (id, critical, value) => sequence(oid(id), ...(critical ? [TRUE] : []), der(0x04, value));

function certificate({ subject, issuer, publicKey, signer, years, extensions }) {
  const serial = randomBytes(16);
  serial[0] = (serial[0] & 0x7f) | 0x40;
  const now = Date.now();
  const content = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, serial),
    ECDSA_SHA256,
    name(issuer),
    // A clock that is behind this one accepts it, too.
    sequence(time(now - 86_400_000), time(now + years * YEAR_MS)),
    name(subject),
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(...extensions)),
  );
  const signature = sign('sha256', content, signer);
  const whole = sequence(content, ECDSA_SHA256, der(0x03, Buffer.from([0]), signature));
  const lines = whole
    .toString('base64')
    .match(/.{1,64}/g)
    .join('\n');
  return `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`;
}

/** Identifies a key; certificates of the authority and of services refer to each other by it. */
const keyId = (publicKey) =>
  createHash('sha1')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest();
const subjectKey = (publicKey) => extension('551d0e', false, der(0x04, keyId(publicKey)));

const newKey = () =>
  generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' });

/** @returns {{ certificate: string, key: string }} an authority that signs certificates of services only, for ten years */
export function makeAuthority(subject) {
  const key = newKey();
  const signer = createPrivateKey(key);
  const extensions = [
    extension('551d13', true, sequence(TRUE, der(0x02, Buffer.from([0])))), // basicConstraints: CA, path length 0
    extension('551d0f', true, der(0x03, Buffer.from([1, 0x06]))), // keyUsage: keyCertSign, cRLSign
  ];
  const publicKey = createPublicKey(signer);
  extensions.push(subjectKey(publicKey));
  return { key, certificate: certificate({ subject, issuer: subject, publicKey, signer, years: 10, extensions }) };
}

/** @returns {{ certificate: string, key: string }} of a server with these DNS names, for two years */
export function makeServerCertificate(authority, subject, names) {
  const key = newKey();
  const publicKey = createPublicKey(createPrivateKey(key));
  const extensions = [
    extension('551d13', true, sequence()),
    extension('551d0f', true, der(0x03, Buffer.from([7, 0x80]))), // keyUsage: digitalSignature
    extension('551d25', false, sequence(oid('2b06010505070301'))), // extendedKeyUsage: serverAuth
    extension('551d11', false, sequence(...names.map((dns) => der(0x82, Buffer.from(dns))))), // subjectAltName
  ];
  const signer = createPrivateKey(authority.key);
  extensions.push(
    subjectKey(publicKey),
    extension('551d23', false, sequence(der(0x80, keyId(createPublicKey(signer))))), // authorityKeyIdentifier
  );
  return {
    key,
    certificate: certificate({ subject, issuer: authority.subject, publicKey, signer, years: 2, extensions }),
  };
}
