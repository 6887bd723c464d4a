import { generateKeyPairSync, sign } from 'node:crypto';
import { isIPv4 } from 'node:net';

const der = (tag: number, ...parts: (Buffer | number[])[]): Buffer => {
  const content = Buffer.concat(parts.map((part) => Buffer.from(part)));
  const { length } = content;
  const size = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 255];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
};
const sequence = (...parts: (Buffer | number[])[]) => der(0x30, ...parts);
const oid = (...bytes: number[]) => der(0x06, bytes);
const HOUR_MS = 3_600_000;
const time = (at: Date) => der(0x17, Buffer.from(`${at.toISOString().replace(/[-:T]/g, '').slice(2, 14)}Z`));

/**
 * A self-signed certificate (RFC 5280) for an IPv4 address or a name, and its key; both in PEM.
 * @param validMs from when until when it is valid, after now. Default: an hour in both directions
 */
export function selfSigned(
  host = '127.0.0.1',
  validMs: readonly [number, number] = [-HOUR_MS, HOUR_MS],
): { cert: string; key: string } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const ecdsaWithSha256 = sequence(oid(0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02));
  const name = sequence(der(0x31, sequence(oid(0x55, 0x04, 0x03), der(0x0c, Buffer.from('latchkey test')))));
  const subject = isIPv4(host) ? der(0x87, host.split('.').map(Number)) : der(0x82, Buffer.from(host));
  const extensions = sequence(
    sequence(oid(0x55, 0x1d, 0x13), der(0x04, sequence([0x01, 0x01, 0xff]))),
    sequence(oid(0x55, 0x1d, 0x11), der(0x04, sequence(subject))),
  );
  const toBeSigned = sequence(
    der(0xa0, [0x02, 0x01, 0x02]),
    der(0x02, [0x01]),
    ecdsaWithSha256,
    name,
    sequence(...validMs.map((ms) => time(new Date(Date.now() + ms)))),
    name,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, extensions),
  );
  const signature = sign('sha256', toBeSigned, privateKey);
  const certificate = sequence(toBeSigned, ecdsaWithSha256, der(0x03, [0], signature));
  const lines = certificate.toString('base64').match(/.{1,64}/g)!;
  return {
    cert: `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  };
}
