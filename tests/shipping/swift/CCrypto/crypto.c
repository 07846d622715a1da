#include "crypto.h"

#include <stdlib.h>
#include <string.h>

// The part of OpenSSL 3's libcrypto that is used, as its manual declares it: no headers are needed.
typedef struct evp_md_ctx_st EVP_MD_CTX;
typedef struct evp_md_st EVP_MD;
typedef struct evp_pkey_st EVP_PKEY;
typedef struct evp_pkey_ctx_st EVP_PKEY_CTX;
typedef struct ECDSA_SIG_st ECDSA_SIG;
EVP_MD_CTX *EVP_MD_CTX_new(void);
void EVP_MD_CTX_free(EVP_MD_CTX *);
int EVP_MD_CTX_copy_ex(EVP_MD_CTX *, const EVP_MD_CTX *);
const EVP_MD *EVP_sha256(void);
int EVP_DigestInit_ex(EVP_MD_CTX *, const EVP_MD *, void *);
int EVP_DigestUpdate(EVP_MD_CTX *, const void *, size_t);
int EVP_DigestFinal_ex(EVP_MD_CTX *, unsigned char *, unsigned int *);
EVP_PKEY *d2i_PUBKEY(EVP_PKEY **, const unsigned char **, long);
void EVP_PKEY_free(EVP_PKEY *);
EVP_PKEY_CTX *EVP_PKEY_CTX_new(EVP_PKEY *, void *);
void EVP_PKEY_CTX_free(EVP_PKEY_CTX *);
int EVP_PKEY_verify_init(EVP_PKEY_CTX *);
int EVP_PKEY_verify(EVP_PKEY_CTX *, const unsigned char *, size_t, const unsigned char *, size_t);
ECDSA_SIG *d2i_ECDSA_SIG(ECDSA_SIG **, const unsigned char **, long);
void ECDSA_SIG_free(ECDSA_SIG *);

Hash *hash_new(void) {
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_DigestInit_ex(context, EVP_sha256(), NULL);
    return (Hash *)context;
}

void hash_add(Hash *hash, const void *bytes, size_t count) { EVP_DigestUpdate((EVP_MD_CTX *)hash, bytes, count); }

void hash_value(const Hash *hash, unsigned char *value) {
    EVP_MD_CTX *copy = EVP_MD_CTX_new();
    EVP_MD_CTX_copy_ex(copy, (const EVP_MD_CTX *)hash);
    EVP_DigestFinal_ex(copy, value, NULL);
    EVP_MD_CTX_free(copy);
}

void hash_free(Hash *hash) { EVP_MD_CTX_free((EVP_MD_CTX *)hash); }

// The SubjectPublicKeyInfo of a P-256 key, up to its point.
static const unsigned char HEAD[26] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
                                       0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00};

static EVP_PKEY *key(const unsigned char *point) {
    unsigned char info[26 + 65];
    const unsigned char *at = info;
    memcpy(info, HEAD, sizeof HEAD);
    memcpy(info + sizeof HEAD, point, 65);
    return d2i_PUBKEY(NULL, &at, sizeof info);
}

int point_is_valid(const unsigned char *point) {
    EVP_PKEY *made = key(point);
    EVP_PKEY_free(made);
    return made != NULL;
}

int signature_is_valid(const unsigned char *point, const unsigned char *value, const void *signature, size_t count) {
    EVP_PKEY *made = key(point);
    EVP_PKEY_CTX *context = made ? EVP_PKEY_CTX_new(made, NULL) : NULL;
    int valid = context && EVP_PKEY_verify_init(context) == 1
        && EVP_PKEY_verify(context, signature, count, value, 32) == 1;
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(made);
    return valid;
}

int signature_is_der(const void *signature, size_t count) {
    const unsigned char *at = signature;
    ECDSA_SIG *read = d2i_ECDSA_SIG(NULL, &at, (long)count);
    ECDSA_SIG_free(read);
    return read != NULL && at == (const unsigned char *)signature + count;
}
