#pragma once
#include <cstdint>

#if defined(_WIN32)
#define LIMNER_API extern "C" __declspec(dllexport)
#else
#define LIMNER_API extern "C" __attribute__((visibility("default")))
#endif

// Whether this processor can run code made for `name`: "avx512vnni", "avxvnni", "avx2", "neon" ...
LIMNER_API int32_t limner_supports(const char* name);
