// SHA-256 and ECDSA P-256 of OpenSSL's libcrypto, for the stand-in of CryptoKit.
#include <stddef.h>

typedef struct Hash Hash;

Hash *hash_new(void);
void hash_add(Hash *hash, const void *bytes, size_t count);
// Writes 32 bytes; the hash can be added to afterwards.
void hash_value(const Hash *hash, unsigned char *value);
void hash_free(Hash *hash);

// Whether 65 bytes (4, x, y) are a point of the curve.
int point_is_valid(const unsigned char *point);
// Whether a DER signature of a SHA-256 value is that of the key.
int signature_is_valid(const unsigned char *point, const unsigned char *value, const void *signature, size_t count);
// Whether bytes are a signature in DER at all.
int signature_is_der(const void *signature, size_t count);
