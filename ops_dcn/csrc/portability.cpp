// Local copies of the few symbols that would otherwise tie a build to a recent glibc or libstdc++,
// so that a library built on a current distribution loads on older ones (manylinux_2_28).
// exports.map keeps them local.
#include <new>
#include <sstream>

#if defined(__GLIBC__)
// glibc 2.32 tells libstdc++ whether reference counts need atomic operations; 0 means: always.
extern "C" {
char __libc_single_threaded = 0;
}
#endif

#if defined(__GLIBCXX__)
// Out of line only since GCC 11.
namespace std {
[[noreturn]] void __throw_bad_array_new_length() {
  throw bad_array_new_length();
}
}  // namespace std

// Their default constructors are exported by libstdc++ only since GCC 9.
template class std::basic_stringbuf<char>;
template class std::basic_ostringstream<char>;
template class std::basic_stringstream<char>;
#endif
