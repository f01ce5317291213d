# One function makes the anatomy of every module uniform:
#   prism_module(<folder name> [DEPENDS lib...] [TEST_DEPENDS lib...] [PRECOMPILE <header>...])
# builds every *.cc of the current folder into the library prism_<name>, and every *_test.cc beside it into the test program
# <name>_test (registered with ctest case by case). *_server_test.cc need a real server and are built into <name>_server_test.

add_library(prism_flags INTERFACE)
target_compile_options(prism_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wconversion -Wno-sign-conversion -Wno-missing-field-initializers
  -Werror=return-type -Werror=unused-result -Werror=dangling -Wthread-safety -fno-omit-frame-pointer)
target_compile_definitions(prism_flags INTERFACE
  ASIO_STANDALONE ASIO_HAS_CO_AWAIT ASIO_HAS_STD_COROUTINE ASIO_NO_DEPRECATED SPDLOG_COMPILED_LIB SPDLOG_FMT_EXTERNAL
  PRISM_VERSION="${PROJECT_VERSION}")
target_include_directories(prism_flags INTERFACE ${PROJECT_SOURCE_DIR}/src)
if(PRISM_SANITIZE)
  target_compile_options(prism_flags INTERFACE -fsanitize=${PRISM_SANITIZE} -fno-sanitize-recover=undefined)
  target_link_options(prism_flags INTERFACE -fsanitize=${PRISM_SANITIZE})
endif()
target_link_options(prism_flags INTERFACE -fuse-ld=mold)

set(PRISM_TESTS "" CACHE INTERNAL "")

function(prism_module name)
  cmake_parse_arguments(M "" "" "DEPENDS;TEST_DEPENDS;PRECOMPILE" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER sources EXCLUDE REGEX "/main\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER tests EXCLUDE REGEX "_server_test\\.cc$")
  if(sources)
    add_library(prism_${name} STATIC ${sources})
    target_link_libraries(prism_${name} PUBLIC prism_flags ${M_DEPENDS})
    if(M_PRECOMPILE)  # headers that cost every file of the folder seconds
      prism_precompile(prism_${name} ${M_PRECOMPILE})
    endif()
  else()
    add_library(prism_${name} INTERFACE)
    target_link_libraries(prism_${name} INTERFACE prism_flags ${M_DEPENDS})
  endif()
  if(tests)
    prism_test(${name}_test SOURCES ${tests} DEPENDS prism_${name} ${M_TEST_DEPENDS})
  endif()
endfunction()

# Without a time stamp, ccache can share what was compiled with the header.
function(prism_precompile target)
  target_precompile_headers(${target} PRIVATE ${ARGN})
  target_compile_options(${target} PRIVATE "SHELL:-Xclang -fno-pch-timestamp")
endfunction()

function(prism_test name)
  cmake_parse_arguments(T "" "" "SOURCES;DEPENDS" ${ARGN})
  include(GoogleTest)
  add_executable(${name} ${T_SOURCES})
  target_link_libraries(${name} PRIVATE ${T_DEPENDS} GTest::gmock GTest::gtest_main)
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST PROPERTIES TIMEOUT 300 LABELS unit)
endfunction()
