"""What is done on a Windows computer, as PowerShell text: pure functions.

Written against Microsoft's documentation of the modules LocalAccounts, NetSecurity, NetTCPIP
and CimCmdlets. Groups are named by their SIDs, which are the same in every language.
"""

from __future__ import annotations

from collections.abc import Sequence

from vcld.errors import Blame, RemoteError
from vcld.guest.linux.firewall import Opening
from vcld.guest.windows.powershell import array, quote
from vcld.snapshot import Account

ADMINISTRATORS, REMOTE_DESKTOP_USERS = "S-1-5-32-544", "S-1-5-32-555"
#: Marks accounts and rules as ours.
MARK = "Added by vcld"
TAGS = "(Join-Path $HOME 'currentimage.txt')"
#: Rules that Windows has for remote desktops and SSH; ours take their place.
BUILT_IN = ("@FirewallAPI.dll,-28752", "OpenSSH Server")
LONGEST_LOGIN = 20
_FORBIDDEN = frozenset('"/\\[]:;|=,+*?<>@')


def _tolerant(program: str) -> str:
    """A program whose complaints are nothing to us.

    Windows PowerShell 5.1 makes the first redirected line of a program's standard error end the
    script where the preference is Stop (PowerShell issue 4002).
    """
    return f"(& {{ $ErrorActionPreference = 'SilentlyContinue'; {program} 2>$null }})"


def check_login(name: str) -> str:
    """The name, if it can be a local account's.

    Raises:
        RemoteError: it cannot; no computer is at fault.
    """
    bad = (
        not 0 < len(name) <= LONGEST_LOGIN
        or any(c in _FORBIDDEN or ord(c) < 32 for c in name)
        or name.strip(" .") != name
    )
    if bad:
        msg = f"user {name[:40]!r} can have no account on Windows"
        raise RemoteError(msg, blame=Blame.NOBODY)
    return name


def account(wanted: Account) -> str:
    """Make a local account, or set the password and rights of the one there is."""
    name = quote(check_login(wanted.user.login))
    password = f"ConvertTo-SecureString {quote(wanted.password or '')} -AsPlainText -Force"
    lines = [
        f"$name = {name}",
        "$user = Get-LocalUser -Name $name -ErrorAction SilentlyContinue",
        f"if ($user -and $user.Description -ne '{MARK}')"
        ' { throw "account $name belongs to the image; no user can have it" }',
    ]
    if wanted.password:
        lines += [
            f"$password = {password}",
            f"if (-not $user) {{ New-LocalUser -Name $name -Password $password"
            f" -Description '{MARK}' -PasswordNeverExpires -UserMayNotChangePassword | Out-Null }}",
            "else { Set-LocalUser -Name $name -Password $password }",
            "Enable-LocalUser -Name $name",
        ]
    else:
        lines.append(
            f"if (-not $user) {{ New-LocalUser -Name $name -NoPassword"
            f" -Description '{MARK}' | Out-Null }}"
        )
    lines.append(_membership(REMOTE_DESKTOP_USERS, member=True))
    lines.append(_membership(ADMINISTRATORS, member=wanted.root_access))
    return "\n".join(lines)


def _membership(group: str, *, member: bool) -> str:
    verb = "Add" if member else "Remove"
    return f"{verb}-LocalGroupMember -SID '{group}' -Member $name -ErrorAction SilentlyContinue"


def remove_others(names: Sequence[str]) -> str:
    """No account of a reservation but these stays; its sessions, profile and files go too."""
    return "\n".join(
        (
            f"$stay = {array(*names)}",
            f"foreach ($user in Get-LocalUser | Where-Object Description -eq '{MARK}') {{",
            "    if ($stay -contains $user.Name) { continue }",
            "    Disable-LocalUser -Name $user.Name",
            "    Get-Process -IncludeUserName -ErrorAction SilentlyContinue |",
            '        Where-Object UserName -eq "$env:COMPUTERNAME\\$($user.Name)" |',
            "        Stop-Process -Force -ErrorAction SilentlyContinue",
            "    Get-CimInstance Win32_UserProfile | Where-Object SID -eq $user.SID.Value |",
            "        Remove-CimInstance -ErrorAction SilentlyContinue",
            "    Remove-LocalUser -Name $user.Name",
            "}",
            f"if (Get-LocalUser | Where-Object {{ $_.Description -eq '{MARK}'"
            " -and $stay -notcontains $_.Name }) { throw 'accounts are left' }",
        )
    )


def firewall(nodes: Sequence[str], openings: Sequence[Opening], members: Sequence[str]) -> str:
    """Let in the management node, a cluster's members and the openings; nobody else.

    New rules are made before the old ones go, so that our own connection stays.
    """
    lines = [f"$old = @(Get-NetFirewallRule -Group '{MARK}' -ErrorAction SilentlyContinue)"]
    trusted = [*nodes, *members]
    lines += [
        "$peer = ($env:SSH_CONNECTION -split ' ')[0]",
        f"$trusted = @($peer) + {array(*trusted)} | Where-Object {{ $_ }} | Select-Object -Unique",
        f"New-NetFirewallRule -DisplayName 'vcld management' -Group '{MARK}' -Direction Inbound"
        " -RemoteAddress $trusted -Action Allow -Profile Any | Out-Null",
    ]
    for opening in openings:
        source = quote(opening.source) if opening.source else "Any"
        lines.append(
            f"New-NetFirewallRule -DisplayName 'vcld port {opening.port}' -Group '{MARK}'"
            f" -Direction Inbound -Protocol {opening.protocol.upper()} -LocalPort {opening.port}"
            f" -RemoteAddress {source} -Action Allow -Profile Any | Out-Null"
        )
    lines += [
        "$old | Remove-NetFirewallRule",
        f"foreach ($group in {array(*BUILT_IN)}) {{",
        "    Get-NetFirewallRule -Group $group -ErrorAction SilentlyContinue |",
        "        Disable-NetFirewallRule",
        "}",
        "Set-NetFirewallProfile -All -Enabled True -DefaultInboundAction Block",
    ]
    return "\n".join(lines)


def open_ssh() -> str:
    """Before a capture: SSH for anybody, since the image does not know its next node."""
    return (
        f"New-NetFirewallRule -DisplayName 'vcld image' -Group '{MARK}' -Direction Inbound"
        " -Protocol TCP -LocalPort 22 -Action Allow -Profile Any | Out-Null"
    )


def services(names: Sequence[str], *, running: bool) -> str:
    """Start, or stop, the services of connect methods; those that are absent are told of."""
    # Stopping the system's own remote desktop service would end nothing that rules do not.
    verb = "Start-Service -Name $name" if running else "Stop-Service -Name $name -Force"
    missing = 'throw "there is no service $name"' if running else "continue"
    return "\n".join(
        (
            f"foreach ($name in {array(*names)}) {{",
            "    if (-not (Get-Service -Name $name -ErrorAction SilentlyContinue))"
            f" {{ {missing} }}",
            f"    {verb}",
            "}",
        )
    )


def show_connections(ports: Sequence[int]) -> str:
    """Established connections to these ports and who is logged in, in the form of ``ss``."""
    numbers = ", ".join(str(port) for port in ports)
    return "\n".join(
        (
            "Get-NetTCPConnection -State Established -ErrorAction SilentlyContinue |",
            f"    Where-Object LocalPort -in @({numbers}) | ForEach-Object {{",
            "        'vcld:socket=0 0 [{0}]:{1} [{2}]:{3}' -f $_.LocalAddress, $_.LocalPort,",
            "            $_.RemoteAddress, $_.RemotePort }",
            f"{_tolerant('quser')} | Select-Object -Skip 1 | ForEach-Object {{",
            "    'vcld:who=' + (($_ -replace '^[>\\s]+', '') -split '\\s+')[0] }",
        )
    )


def show_tags() -> str:
    """What the computer says about its image."""
    return f"if (Test-Path {TAGS}) {{ Get-Content {TAGS} | ForEach-Object {{ 'vcld:tag=' + $_ }} }}"


def set_tag(name: str, value: str) -> str:
    """Replace one line of the tags."""
    return "\n".join(
        (
            f"$lines = @(if (Test-Path {TAGS}) {{ Get-Content {TAGS} |"
            f" Where-Object {{ $_ -notlike ({quote(name)} + '=*') }} }})",
            f"$lines += {quote(name)} + '=' + {quote(value)} +"
            " ' (' + (Get-Date -Format 'yyyy-MM-dd HH:mm:ss') + ')'",
            f"Set-Content -Path {TAGS} -Value $lines -Encoding UTF8",
        )
    )


def write_tags(text: str, *, only_if_missing: bool) -> str:
    """The whole of the tags anew."""
    write = f"Set-Content -Path {TAGS} -Value {quote(text)} -Encoding UTF8"
    return f"if (-not (Test-Path {TAGS})) {{ {write} }}" if only_if_missing else write


def random_administrator_password() -> str:
    """The built-in administrator gets a password that nobody knows; keys are the way in."""
    return "\n".join(
        (
            "$bytes = New-Object byte[] 24",
            "[Security.Cryptography.RandomNumberGenerator]::Create().GetBytes($bytes)",
            "$word = [Convert]::ToBase64String($bytes) + '-aA1'",
            "Get-LocalUser | Where-Object { $_.SID.Value -like 'S-1-5-21-*-500' } |",
            "    Set-LocalUser -Password (ConvertTo-SecureString $word -AsPlainText -Force)",
        )
    )


def find_address() -> str:
    """The public IPv4 address: on another card than that of this connection."""
    return "\n".join(
        (
            "$own = ($env:SSH_CONNECTION -split ' ')[2]",
            "$all = @(Get-NetIPAddress -AddressFamily IPv4 -AddressState Preferred |",
            "    Where-Object IPAddress -notmatch '^(127|169[.]254)[.]')",
            "$mine = ($all | Where-Object IPAddress -eq $own).InterfaceIndex",
            "$public = @($all | Where-Object InterfaceIndex -ne $mine)[0].IPAddress",
            "'vcld:public=' + $(if ($public) { $public } else { $own })",
        )
    )


def set_hostname_and_time(servers: Sequence[str]) -> str:
    """Time from these servers; none: as the image has it."""
    if not servers:
        return ""
    peers = quote(" ".join(servers))
    return "\n".join(
        (
            f"w32tm /config /syncfromflags:manual /manualpeerlist:{peers} /update | Out-Null",
            "Restart-Service -Name w32time -ErrorAction SilentlyContinue",
        )
    )


def notify(text: str) -> str:
    """Show a text to whoever is logged in."""
    return f"msg.exe * /time:60 {quote(text)}"


def boot_id() -> str:
    """When the system was started."""
    return (
        "'vcld:boot=' + (Get-CimInstance Win32_OperatingSystem).LastBootUpTime.ToUniversalTime()"
        ".ToString('o')"
    )


def clear_traces() -> str:
    """Before a capture: logs, temporary files and histories."""
    return "\n".join(
        (
            f"wevtutil el | ForEach-Object {{ {_tolerant('wevtutil cl $_')} }}",
            'Remove-Item -Path "$env:TEMP\\*", "$env:windir\\Temp\\*" -Recurse -Force'
            " -ErrorAction SilentlyContinue",
            'Remove-Item -Path "$env:ProgramData\\ssh\\ssh_host_*" -Force'
            " -ErrorAction SilentlyContinue",
            "Clear-RecycleBin -Force -ErrorAction SilentlyContinue",
        )
    )


def sysprep() -> str:
    """Generalize the system and stop it; the image brings the answer file."""
    return "\n".join(
        (
            '$answers = "$env:windir\\Panther\\unattend.xml"',
            'if (-not (Test-Path $answers)) { throw "the image has no answer file $answers" }',
            'Start-Process -FilePath "$env:windir\\System32\\Sysprep\\sysprep.exe" -ArgumentList'
            " '/generalize', '/oobe', '/shutdown', '/quiet', \"/unattend:$answers\"",
        )
    )
