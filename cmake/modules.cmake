# One function makes the anatomy of every module uniform:
#   prism_module(<folder name> [DEPENDS lib...] [TEST_DEPENDS lib...] [PRECOMPILE <header>...] [SERVERS <name>...])
# builds every *.cc of the current folder into the library prism_<name>, and every *_test.cc beside it into the test program
# <name>_test (registered with ctest case by case). *_server_test.cc need real servers (scripts/servers; default: the one of the
# folder's name) and are built into <name>_server_test, which finds them in its environment.

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
  cmake_parse_arguments(M "" "" "DEPENDS;TEST_DEPENDS;PRECOMPILE;SERVERS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  set(tests ${sources})
  set(server_tests ${sources})
  list(FILTER server_tests INCLUDE REGEX "_server_test\\.cc$")
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
  if(server_tests AND PRISM_GRPC)
    if(NOT M_SERVERS)
      set(M_SERVERS ${name})
    endif()
    prism_test(${name}_server_test SOURCES ${server_tests} DEPENDS prism_${name} ${M_TEST_DEPENDS} SERVERS ${M_SERVERS})
  endif()
endfunction()

# Without a time stamp, ccache can share what was compiled with the header.
function(prism_precompile target)
  target_precompile_headers(${target} PRIVATE ${ARGN})
  target_compile_options(${target} PRIVATE "SHELL:-Xclang -fno-pch-timestamp")
endfunction()

# Where the tests' servers keep their data; tests/CMakeLists.txt starts and stops them around a run.
set(PRISM_SERVERS_DIR ${PROJECT_BINARY_DIR}/servers)

# A command that finds the given servers, fails without them where they are required (CI), and ends with 77 without them elsewhere.
function(prism_with_servers out)
  set(needed "")
  foreach(server ${ARGN})
    list(APPEND needed --needs ${server})
  endforeach()
  set(${out} ${PROJECT_SOURCE_DIR}/scripts/servers --dir ${PRISM_SERVERS_DIR} exec ${needed} -- PARENT_SCOPE)
endfunction()

# Programs with conformance suites leave what they have shown as files, for scripts/capabilities.
function(prism_test name)
  cmake_parse_arguments(T "" "" "SOURCES;DEPENDS;SERVERS" ${ARGN})
  include(GoogleTest)
  add_executable(${name} ${T_SOURCES})
  target_link_libraries(${name} PRIVATE ${T_DEPENDS} GTest::gmock GTest::gtest_main)
  set(results "")
  set(properties TIMEOUT 300)
  if("prism_conformance" IN_LIST T_DEPENDS)
    set(results XML_OUTPUT_DIR ${PROJECT_BINARY_DIR}/conformance)
    list(APPEND properties FIXTURES_REQUIRED results FIXTURES_SETUP conformance)
  endif()
  if(T_SERVERS)  # a second FIXTURES_REQUIRED adds to the first one
    prism_with_servers(with_servers ${T_SERVERS})
    set_target_properties(${name} PROPERTIES CROSSCOMPILING_EMULATOR "${with_servers}")
    list(APPEND properties LABELS server FIXTURES_REQUIRED servers SKIP_RETURN_CODE 77)
  else()
    list(APPEND properties LABELS unit)
  endif()
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST ${results} PROPERTIES ${properties})
endfunction()
